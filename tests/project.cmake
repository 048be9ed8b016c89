# What holds for the project as a whole.
add_test(NAME Project.FoldersIncludeOnlyWhatTheDesignAllows
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/include_rules.sh ${PROJECT_SOURCE_DIR})
add_test(NAME Project.LibraryExportsOnlyItsOwnSymbols
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/exported_symbols.sh $<TARGET_FILE:gradwarden>)
if(NOT GRADWARDEN_SANITIZE)
  add_test(NAME Project.InstalledPackageIsFoundAndUsable
    COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/install_test.sh ${PROJECT_BINARY_DIR} ${CMAKE_CXX_COMPILER})
  set_tests_properties(Project.InstalledPackageIsFoundAndUsable PROPERTIES TIMEOUT 300)
endif()
add_test(NAME Project.ReadmeShowsTheLinesOfTheExampleTrainer
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/readme_lines.sh ${PROJECT_SOURCE_DIR})
add_test(NAME Project.MetricNamesInReadmeAreThoseOfTheCode
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/metric_names.sh ${PROJECT_SOURCE_DIR})
add_test(NAME Project.FeatureTableNamesTestsThatExist
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/feature_table.sh ${PROJECT_SOURCE_DIR})
add_test(NAME Project.GoalTableNamesTestsThatExist
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/goal_table.sh ${PROJECT_SOURCE_DIR})
# Prometheus and promtool are Debian's, unpacked by deploy/fetch_prometheus.sh; without them these say that they were skipped.
add_test(NAME Project.AlertRulesFireWhenTheyShouldAndOnlyThen
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/alert_rules.sh ${PROJECT_SOURCE_DIR})
add_test(NAME Project.EveryQueryOfDashboardAndRulesReturnsData
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/dashboard_queries.sh ${PROJECT_SOURCE_DIR} $<TARGET_FILE:gradwardend> $<TARGET_FILE:make_run>)
set_tests_properties(Project.AlertRulesFireWhenTheyShouldAndOnlyThen Project.EveryQueryOfDashboardAndRulesReturnsData
  PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300 LABELS e2e)
add_test(NAME Project.DeploymentFilesPassTheirOwnCheckers
  COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/deployment.sh ${PROJECT_SOURCE_DIR} $<TARGET_FILE:gradwardend>)
# The web page in Chromium, where that is installed; pages, browser and daemon are real.
add_test(NAME Page.IsDrawnInARealBrowserAndUpdatesLive
  COMMAND ${PROJECT_SOURCE_DIR}/tests/page/run.sh $<TARGET_FILE:gradwardend> $<TARGET_FILE:make_run>)
set_tests_properties(Page.IsDrawnInARealBrowserAndUpdatesLive
  PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600 PROCESSORS 2 LABELS e2e)
