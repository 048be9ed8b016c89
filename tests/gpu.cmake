# The tests of tests/emulator once more, on real GPUs: the same sources, linked with the kernels that nvcc compiled and the
# real runtime. Without a GPU each test says so and counts as skipped. `ctest -L gpu` runs them.
# Not in builds with sanitizers, which real GPUs do not go with.
if(NOT GRADWARDEN_NCCL OR GRADWARDEN_SANITIZE)
  return()
endif()

set(gpu_sources
  emulator/hardware/control.cc emulator/hardware/launcher.cc emulator/gpu_ranks.cc
  emulator/device_guard_adaptive_test.cc emulator/device_guard_flight_test.cc emulator/device_guard_graph_test.cc emulator/device_guard_inspection_test.cc emulator/device_guard_observation_test.cc emulator/device_guard_policy_test.cc emulator/device_guard_ranks_test.cc emulator/device_guard_test.cc)
gradwarden_test(gpu_guard_test SOURCES ${gpu_sources}
  LIBS gradwarden_client_guard_cuda gradwarden_client_nccl gradwarden_client_guard gradwarden_client_collective
       gradwarden_kernels_cuda CUDA::cudart_static
  LABELS gpu)

# Tests of kernels hand their vectors to the device: their heap is managed memory.
add_executable(gpu_kernel_test
  emulator/apply_test.cc emulator/decide_test.cc emulator/digest_test.cc emulator/large_tensor_test.cc emulator/statistics_test.cc emulator/step_device.cc
  emulator/hardware/gpu_main.cc emulator/hardware/launcher.cc emulator/hardware/managed_new.cc
  property/kernel_reference.cc)
target_link_libraries(gpu_kernel_test PRIVATE gradwarden_kernels_cuda gradwarden_kernels_cpu hwy::hwy
  CUDA::cudart_static gradwarden_flags GTest::gtest Threads::Threads)
target_include_directories(gpu_kernel_test SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
add_test(NAME GpuKernels.AgreeWithTheReferenceOnARealGpu COMMAND gpu_kernel_test)
set_tests_properties(GpuKernels.AgreeWithTheReferenceOnARealGpu PROPERTIES LABELS gpu TIMEOUT 600 SKIP_RETURN_CODE 77)

foreach(test gpu_guard_test gpu_kernel_test)
  target_compile_definitions(${test} PRIVATE GRADWARDEN_HARDWARE)
endforeach()
