# The multi-GPU example trainer on emulated GPUs: its kernels alone; then the whole program, from the same sources,
# against a real daemon.
gradwarden_test(nccl_mlp_kernels_test SOURCES unit/nccl_mlp_kernels_test.cc
  LIBS gradwarden_emulator LABELS emulator)

if(NOT (GRADWARDEN_EMULATED_RUNTIME AND GRADWARDEN_NCCL AND GRADWARDEN_EXAMPLES))
  return()
endif()

set(nccl_mlp ${PROJECT_SOURCE_DIR}/client/examples/nccl_mlp)
set_source_files_properties(${nccl_mlp}/kernels.cu PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
add_executable(nccl_mlp_emulated e2e/nccl_mlp_emulated.cc
  ${nccl_mlp}/kernels.cu ${nccl_mlp}/main.cc ${nccl_mlp}/options.cc ${nccl_mlp}/trainer.cc)
# Not the shared library: that one brings the real CUDA runtime.
target_link_libraries(nccl_mlp_emulated PRIVATE gradwarden_emulated_runtime
  gradwarden_client_guard_cuda gradwarden_client_nccl gradwarden_client_reporter gradwarden_client_guard
  gradwarden_client_collective gradwarden_flags nlohmann_json::nlohmann_json CLI11::CLI11)

add_executable(nccl_trainer_e2e_test e2e/nccl_trainer_test.cc)
target_link_libraries(nccl_trainer_e2e_test PRIVATE
  gradwarden_daemon_process gradwarden_rpc gradwarden_flags GTest::gtest GTest::gmock GTest::gtest_main)
gradwarden_use_rpc_pch(nccl_trainer_e2e_test)
target_compile_definitions(nccl_trainer_e2e_test PRIVATE
  GRADWARDEN_TEST_NCCL_TRAINER="$<TARGET_FILE:nccl_mlp_emulated>")
add_dependencies(nccl_trainer_e2e_test nccl_mlp_emulated)
gtest_discover_tests(nccl_trainer_e2e_test DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
  PROPERTIES TIMEOUT 300 PROCESSORS 2)
# Two labels do not survive the call above. Fibers are more than ThreadSanitizer can watch.
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/nccl_trainer_e2e_labels.cmake [[
if(nccl_trainer_e2e_test_TESTS)
  set_tests_properties(${nccl_trainer_e2e_test_TESTS} PROPERTIES LABELS "e2e;emulator")
endif()
]])
set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${CMAKE_CURRENT_BINARY_DIR}/nccl_trainer_e2e_labels.cmake)
