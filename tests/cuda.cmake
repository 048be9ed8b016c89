# The emulated GPU: the kernels of kernels/cuda compiled for the host, one fiber per thread. Needs no CUDA.
find_package(Boost 1.74 REQUIRED COMPONENTS context)

set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cuda/kernels.cu PROPERTIES
  LANGUAGE CXX COMPILE_OPTIONS "-xc++")
add_library(gradwarden_emulator STATIC
  emulator/fiber.cc emulator/launcher.cc ${PROJECT_SOURCE_DIR}/kernels/cuda/kernels.cu)
target_compile_definitions(gradwarden_emulator PUBLIC GRADWARDEN_EMULATOR="tests/emulator/device_emulator.h")
# The kernels' unroll pragmas are nvcc's.
target_compile_options(gradwarden_emulator PUBLIC -Wno-unknown-pragmas)
target_link_libraries(gradwarden_emulator PUBLIC gradwarden_kernels_cuda_plan Boost::context PRIVATE gradwarden_flags)

gradwarden_test(emulator_test
  SOURCES emulator/apply_test.cc emulator/broken_kernels_test.cc emulator/decide_test.cc
          emulator/statistics_test.cc emulator/step_device.cc property/kernel_reference.cc
  LIBS gradwarden_emulator gradwarden_kernels_cpu hwy::hwy Threads::Threads
  LABELS emulator)

# What nvcc makes of the kernels: registers, spills, stack, width of loads.
add_test(NAME kernel_resources
  COMMAND ${PROJECT_SOURCE_DIR}/tests/emulator/resource_report.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(kernel_resources PROPERTIES LABELS cuda TIMEOUT 300 SKIP_RETURN_CODE 77)
if(GRADWARDEN_CUDA)
  set_tests_properties(kernel_resources PROPERTIES ENVIRONMENT "GRADWARDEN_NVCC=${CMAKE_CUDA_COMPILER}")
else()
  set_tests_properties(kernel_resources PROPERTIES ENVIRONMENT "GRADWARDEN_NVCC=")
endif()
