# The command line alone and against a real daemon; the example trainer with real ranks.
gradwarden_test(cli_test
  SOURCES unit/cli_aftermath_test.cc unit/cli_csv_test.cc unit/cli_event_text_test.cc unit/cli_history_source_test.cc unit/cli_json_test.cc
          unit/cli_plot_test.cc unit/cli_replay_html_test.cc unit/cli_replay_report_test.cc unit/cli_step_text_test.cc unit/cli_text_test.cc unit/cli_top_screen_test.cc
  LIBS gradwarden_cli)

gradwarden_test(cli_e2e_test GRPC_HEADERS SOURCES e2e/cli_aftermath_test.cc e2e/cli_test.cc e2e/cli_top_test.cc e2e/cli_watch_test.cc
  LIBS gradwarden_daemon_process gradwarden_rpc LABELS e2e)
target_compile_definitions(cli_e2e_test PRIVATE GRADWARDEN_TEST_COMMAND="$<TARGET_FILE:gradwarden_command>")
add_dependencies(cli_e2e_test gradwarden_command)

# The reporter, with hand-made records, against a real daemon and read with the command line.
gradwarden_test(reporter_e2e_test GRPC_HEADERS SOURCES e2e/reporter_daemon_test.cc
  LIBS gradwarden_daemon_process gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard
       gradwarden_rpc
  LABELS e2e)
target_compile_definitions(reporter_e2e_test PRIVATE GRADWARDEN_TEST_COMMAND="$<TARGET_FILE:gradwarden_command>")
add_dependencies(reporter_e2e_test gradwarden_command)

if(TARGET char_lstm)
  add_executable(trainer_e2e_test e2e/trainer_bad_input_test.cc e2e/trainer_process.cc e2e/trainer_test.cc)
  target_link_libraries(trainer_e2e_test PRIVATE
    gradwarden_daemon_process gradwarden_rpc gradwarden_flags GTest::gtest GTest::gmock GTest::gtest_main)
  gradwarden_use_rpc_pch(trainer_e2e_test)
  target_compile_definitions(trainer_e2e_test PRIVATE
    GRADWARDEN_TEST_MPIRUN="${PROJECT_SOURCE_DIR}/tests/mpirun.sh" GRADWARDEN_TEST_TRAINER="$<TARGET_FILE:char_lstm>")
  add_dependencies(trainer_e2e_test char_lstm)
  gtest_discover_tests(trainer_e2e_test DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT 300 PROCESSORS 2)
  # Several labels do not survive the call above. MPI's own library is neither instrumented nor free of leaks at exit.
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/trainer_e2e_labels.cmake [[
if(trainer_e2e_test_TESTS)
  set_tests_properties(${trainer_e2e_test_TESTS} PROPERTIES LABELS "e2e;no-tsan" ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0")
endif()
]])
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${CMAKE_CURRENT_BINARY_DIR}/trainer_e2e_labels.cmake)
endif()

# Alerts of a real daemon, silenced with the command line, in Debian's Alertmanager where it was fetched.
gradwarden_test(alerts_e2e_test GRPC_HEADERS SOURCES e2e/daemon_alerts_test.cc LIBS gradwarden_daemon_process gradwarden_rpc LABELS e2e)
target_compile_definitions(alerts_e2e_test PRIVATE GRADWARDEN_TEST_COMMAND="$<TARGET_FILE:gradwarden_command>"
  GRADWARDEN_TEST_ALERTMANAGER="${PROJECT_SOURCE_DIR}/build/tools/alertmanager/usr/bin")
add_dependencies(alerts_e2e_test gradwarden_command)
