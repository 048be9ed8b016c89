# Ingest of one gradwardend against an empty gRPC handler: see the head of ingest_bench.cc.
if(GRADWARDEN_DAEMON AND GRADWARDEN_TESTS)
  find_package(nlohmann_json REQUIRED CONFIG)
  add_executable(ingest_bench ${CMAKE_CURRENT_LIST_DIR}/ingest_bench.cc)
  target_link_libraries(ingest_bench PRIVATE gradwarden_daemon_process gradwarden_rpc gradwarden_flags)
  gradwarden_use_rpc_pch(ingest_bench)
endif()
