# A real gradwardend under load: tests/bench/load_bench.cc, whose short form is a test.
add_executable(load_bench bench/load_bench.cc bench/load/scraper.cc bench/load/trainers.cc bench/load/webhook_sink.cc)
target_link_libraries(load_bench PRIVATE gradwarden_daemon_process gradwarden_client_reporter
  gradwarden_client_collective gradwarden_client_guard gradwarden_rpc CLI11::CLI11 gradwarden_flags)
gradwarden_use_rpc_pch(load_bench)
add_test(NAME Load.TenTimesASmallLoadLosesNothingAndEndsInOrderOnSigterm COMMAND load_bench --brief)
set_tests_properties(Load.TenTimesASmallLoadLosesNothingAndEndsInOrderOnSigterm
  PROPERTIES TIMEOUT 300 PROCESSORS 2 LABELS e2e)
gradwarden_test(daemon_overload_test GRPC_HEADERS SOURCES unit/daemon_overload_test.cc LIBS gradwarden_daemon_ingest_rpc)
# Throughput of one client beside VictoriaMetrics. Prints figures; no test.
add_executable(import_bench bench/import_bench.cc)
target_link_libraries(import_bench PRIVATE gradwarden_daemon_process gradwarden_rpc gradwarden_flags)
gradwarden_use_rpc_pch(import_bench)
gradwarden_test(run_names_test GRPC_HEADERS SOURCES e2e/run_names_test.cc LIBS gradwarden_daemon_process gradwarden_rpc LABELS e2e)
# Time to ready and memory of a daemon with a long history; a test with a short one.
add_executable(restart_bench bench/restart_bench.cc)
target_link_libraries(restart_bench PRIVATE gradwarden_daemon_process gradwarden_rpc gradwarden_flags)
gradwarden_use_rpc_pch(restart_bench)
add_test(NAME Restart.ADaemonThatWasKilledKnowsAllItHadAcknowledged COMMAND restart_bench 200000 32)
set_tests_properties(Restart.ADaemonThatWasKilledKnowsAllItHadAcknowledged PROPERTIES TIMEOUT 300 LABELS e2e)
