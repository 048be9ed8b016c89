# Client: guard, collectives, reporter.
gradwarden_test(client_guard_test
  SOURCES unit/allocation_counter.cc unit/client_adaptive_clip_test.cc unit/client_annotations_test.cc unit/client_audit_test.cc unit/client_collective_test.cc
          unit/client_flight_recorder_test.cc unit/client_guard_policy_test.cc unit/client_guard_test.cc unit/client_layout_test.cc unit/client_moves_test.cc unit/client_outside_test.cc
          unit/client_observation_test.cc property/guard_mesh_test.cc property/guard_sharding_test.cc
  LIBS gradwarden_client_guard gradwarden_client_collective)

gradwarden_test(client_reporter_test GRPC_HEADERS
  SOURCES unit/allocation_counter.cc unit/client_backlog_test.cc unit/client_delivery_test.cc
          unit/client_flight_test.cc unit/client_report_fields_test.cc unit/client_reporter_rebind_test.cc unit/client_reporter_test.cc unit/client_ring_test.cc unit/history_file_test.cc
  LIBS gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard)

gradwarden_test(c_api_test
  SOURCES unit/c_api_test.cc
  LIBS gradwarden_client_c_api gradwarden_client_reporter gradwarden_client_collective gradwarden_client_guard)
if(GRADWARDEN_EXAMPLES)
  foreach(name 01_minimal 02_per_layer_thresholds 03_tensor_parallel 04_save_restore)
    add_test(NAME CExample.${name} COMMAND c_${name})
    set_tests_properties(CExample.${name} PROPERTIES TIMEOUT 60)
  endforeach()
endif()

if(GRADWARDEN_MPI)
  add_executable(mpi_ranks_test e2e/mpi_ranks_test.cc)
  target_link_libraries(mpi_ranks_test PRIVATE gradwarden_mpi gradwarden_flags)
  add_test(NAME MpiRanks.FourProcessesAgreeAndBindErrorsReachEveryRank
    COMMAND ${PROJECT_SOURCE_DIR}/tests/mpirun.sh 4 $<TARGET_FILE:mpi_ranks_test>)
  set_tests_properties(MpiRanks.FourProcessesAgreeAndBindErrorsReachEveryRank PROPERTIES TIMEOUT 120
    # MPI's own library is neither instrumented nor free of leaks at exit.
    LABELS no-tsan ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0")
endif()

# The GPU path on the emulated CUDA runtime and NCCL.
if(GRADWARDEN_EMULATED_RUNTIME)
  gradwarden_emulated_test(device_guard_test
    SOURCES emulator/device_guard_adaptive_test.cc emulator/device_guard_cost_test.cc emulator/device_guard_failure_test.cc emulator/device_guard_flight_test.cc emulator/device_guard_graph_test.cc emulator/device_guard_inspection_test.cc emulator/device_guard_observation_test.cc emulator/device_guard_policy_test.cc
            emulator/device_guard_ranks_test.cc emulator/device_guard_test.cc emulator/gpu_ranks.cc
    LIBS gradwarden_client_guard_cuda gradwarden_client_nccl gradwarden_client_guard gradwarden_client_collective
    LABELS emulator)
endif()
