# Tests of the wire's rules and of the daemon: parts alone, then the real process.
# Imported targets are per folder: what the daemon's targets link must be known here too.
find_package(absl REQUIRED CONFIG)
find_package(prometheus-cpp REQUIRED CONFIG COMPONENTS core)
find_package(spdlog REQUIRED CONFIG)
find_package(yaml-cpp REQUIRED CONFIG)
find_package(CLI11 REQUIRED CONFIG)
find_package(nlohmann_json REQUIRED CONFIG)

gradwarden_test(validate_test SOURCES unit/validate_test.cc LIBS gradwarden_contract)
gradwarden_test(daemon_detect_test
  SOURCES unit/daemon_detect_ranks_test.cc unit/daemon_detect_test.cc LIBS gradwarden_daemon_detect)
gradwarden_test(daemon_store_test SOURCES unit/daemon_store_records_test.cc unit/daemon_store_test.cc
  LIBS gradwarden_daemon_store PkgConfig::SQLITE)
gradwarden_test(daemon_ingest_parts_test SOURCES unit/daemon_ingest_parts_test.cc
  LIBS gradwarden_daemon_ingest)
gradwarden_test(daemon_concurrency_test SOURCES unit/daemon_concurrency_test.cc
  LIBS gradwarden_daemon_ingest gradwarden_daemon_query spdlog::spdlog)
gradwarden_test(daemon_metrics_test SOURCES unit/daemon_metrics_test.cc LIBS gradwarden_daemon_metrics)
gradwarden_test(daemon_config_test SOURCES unit/daemon_config_test.cc LIBS gradwarden_daemon_app)

# A real gradwardend as a child process, for whoever needs one.
add_library(gradwarden_daemon_process STATIC e2e/daemon_process.cc)
target_link_libraries(gradwarden_daemon_process
  PUBLIC nlohmann_json::nlohmann_json PRIVATE gradwarden_flags)
target_include_directories(gradwarden_daemon_process PUBLIC ${PROJECT_SOURCE_DIR})
target_compile_definitions(gradwarden_daemon_process
  PRIVATE GRADWARDEN_TEST_GRADWARDEND="$<TARGET_FILE:gradwardend>")
add_dependencies(gradwarden_daemon_process gradwardend)

gradwarden_test(daemon_e2e_test
  SOURCES e2e/daemon_events_test.cc e2e/daemon_ingest_test.cc e2e/daemon_lifecycle_test.cc
          e2e/daemon_store_failure_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc LABELS e2e)
gradwarden_use_rpc_pch(daemon_e2e_test)
gradwarden_test(kill_daemon_test SOURCES fault/kill_daemon_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc LABELS fault)
gradwarden_use_rpc_pch(kill_daemon_test)
target_compile_definitions(daemon_config_test
  PRIVATE GRADWARDEN_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
