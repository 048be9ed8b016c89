# Who is let in, who is not, and slow or half-open peers: a real gradwardend with certificates and tokens.
gradwarden_test(daemon_guarded_test GRPC_HEADERS
  SOURCES e2e/daemon_reload_test.cc e2e/daemon_slow_peers_test.cc e2e/daemon_tls_test.cc e2e/daemon_tokens_test.cc
          e2e/spool_test.cc
  LIBS gradwarden_daemon_process gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard
       gradwarden_rpc
  LABELS e2e-threads)
target_compile_definitions(daemon_guarded_test PRIVATE GRADWARDEN_TEST_COMMAND="$<TARGET_FILE:gradwarden_command>")
add_executable(killed_trainer e2e/killed_trainer.cc)
target_link_libraries(killed_trainer PRIVATE
  gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard gradwarden_flags GTest::gtest)
target_compile_definitions(daemon_guarded_test PRIVATE GRADWARDEN_TEST_KILLED_TRAINER="$<TARGET_FILE:killed_trainer>")
add_dependencies(daemon_guarded_test gradwarden_command killed_trainer)

gradwarden_test(daemon_security_test SOURCES unit/daemon_security_test.cc LIBS gradwarden_daemon_security)
gradwarden_test(secure_channel_test SOURCES unit/secure_channel_test.cc LIBS gradwarden_channel)
gradwarden_test(connection_table_test SOURCES unit/connection_table_test.cc LIBS gradwarden_daemon_http)
gradwarden_test(http_server_test SOURCES unit/http_server_test.cc LIBS gradwarden_daemon_http)
gradwarden_test(daemon_retention_test SOURCES unit/daemon_recovery_test.cc unit/daemon_retention_test.cc
  LIBS gradwarden_daemon_store PkgConfig::SQLITE)
gradwarden_test(client_spool_test GRPC_HEADERS SOURCES unit/client_spool_test.cc
  LIBS gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard gradwarden_rpc)
