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
