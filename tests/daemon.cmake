# Tests of the wire's rules and of the daemon: parts alone, then the real process.
# Imported targets are per folder: what the daemon's targets link must be known here too.
find_package(absl REQUIRED CONFIG)
find_package(prometheus-cpp REQUIRED CONFIG COMPONENTS core)
find_package(spdlog REQUIRED CONFIG)
find_package(yaml-cpp REQUIRED CONFIG)
find_package(CLI11 REQUIRED CONFIG)
find_package(nlohmann_json REQUIRED CONFIG)

gradwarden_test(validate_test SOURCES unit/daemon_choice_test.cc unit/validate_test.cc LIBS gradwarden_contract)
gradwarden_test(daemon_detect_test
  SOURCES unit/daemon_all_rules_test.cc unit/daemon_calibrated_detector_test.cc unit/daemon_calibrated_signal_test.cc
          unit/daemon_detect_ranks_test.cc unit/daemon_detect_test.cc unit/daemon_group_rules_test.cc unit/daemon_rules_test.cc
          unit/daemon_stall_test.cc
  LIBS gradwarden_daemon_detect)
gradwarden_test(daemon_diagnose_test SOURCES unit/daemon_diagnose_test.cc LIBS gradwarden_daemon_diagnose)
gradwarden_test(daemon_alerts_test SOURCES unit/daemon_alerts_test.cc
  LIBS gradwarden_daemon_alerts nlohmann_json::nlohmann_json)
gradwarden_test(replay_test SOURCES unit/log_follower_test.cc unit/replay_readers_test.cc unit/replay_test.cc LIBS gradwarden_daemon_replay)
gradwarden_test(daemon_store_test SOURCES unit/daemon_store_records_test.cc unit/daemon_store_test.cc
  LIBS gradwarden_daemon_store PkgConfig::SQLITE)
gradwarden_test(daemon_ingest_parts_test
  SOURCES unit/daemon_admission_test.cc unit/daemon_attempt_directory_test.cc unit/daemon_ingest_parts_test.cc
  LIBS gradwarden_daemon_ingest)
gradwarden_test(daemon_concurrency_test SOURCES unit/daemon_concurrency_test.cc
  LIBS gradwarden_daemon_ingest gradwarden_daemon_query spdlog::spdlog)
gradwarden_test(daemon_metrics_test SOURCES unit/daemon_metrics_test.cc LIBS gradwarden_daemon_metrics)
gradwarden_test(daemon_page_test SOURCES unit/daemon_page_test.cc LIBS gradwarden_daemon_page nlohmann_json::nlohmann_json)
gradwarden_test(daemon_config_test SOURCES unit/daemon_config_test.cc LIBS gradwarden_daemon_app)

# A real gradwardend as a child process, for whoever needs one.
add_library(gradwarden_daemon_process STATIC e2e/daemon_process.cc)
target_link_libraries(gradwarden_daemon_process
  PUBLIC nlohmann_json::nlohmann_json PRIVATE gradwarden_flags)
target_include_directories(gradwarden_daemon_process PUBLIC ${PROJECT_SOURCE_DIR})
target_compile_definitions(gradwarden_daemon_process
  PRIVATE GRADWARDEN_TEST_GRADWARDEND="$<TARGET_FILE:gradwardend>")
add_dependencies(gradwarden_daemon_process gradwardend)

gradwarden_test(daemon_e2e_test GRPC_HEADERS
  SOURCES e2e/daemon_events_test.cc e2e/daemon_ingest_test.cc e2e/daemon_lifecycle_test.cc
          e2e/daemon_store_failure_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc LABELS e2e-threads)
gradwarden_test(kill_daemon_test GRPC_HEADERS SOURCES fault/kill_daemon_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc LABELS fault)
gradwarden_test(drain_under_load_test GRPC_HEADERS SOURCES fault/drain_under_load_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc LABELS fault PROCESSORS 2)
gradwarden_test(sink_outage_test GRPC_HEADERS SOURCES fault/sink_outage_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc nlohmann_json::nlohmann_json LABELS fault)
# Long, and with bounds on memory that no sanitizer keeps.
if(NOT GRADWARDEN_SANITIZE)
  gradwarden_test(soak_test GRPC_HEADERS SOURCES fault/soak_test.cc
    LIBS gradwarden_daemon_process gradwarden_rpc LABELS fault PROCESSORS 2)
  # A trainer's reporter and a daemon with trouble between them.
  gradwarden_test(delivery_fault_test GRPC_HEADERS SOURCES fault/faulty_proxy_test.cc fault/lossy_wire.cc fault/network_test.cc
    LIBS gradwarden_daemon_process gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard gradwarden_rpc
         PkgConfig::SQLITE
    LABELS fault)
endif()
target_compile_definitions(daemon_config_test
  PRIVATE GRADWARDEN_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}")

# Makes runs in a daemon, for what is tested behind it.
add_executable(make_run e2e/make_run.cc)
target_link_libraries(make_run PRIVATE gradwarden_rpc CLI11::CLI11 gradwarden_flags)
target_include_directories(make_run PRIVATE ${PROJECT_SOURCE_DIR})
gradwarden_use_rpc_pch(make_run)
# The diagnosis on recordings of real trainings whose cause is known.
find_program(GRADWARDEN_PYTHON3 python3)
if(GRADWARDEN_PYTHON3 AND NOT GRADWARDEN_SANITIZE)
  add_test(NAME Laboratory.TheDiagnosisNamesTheCauseThatWasSwitchedOn
    COMMAND ${GRADWARDEN_PYTHON3} ${PROJECT_SOURCE_DIR}/tests/lab/score.py $<TARGET_FILE:gradwarden_command> --least 0.9)
  set_tests_properties(Laboratory.TheDiagnosisNamesTheCauseThatWasSwitchedOn PROPERTIES TIMEOUT 300)
endif()
