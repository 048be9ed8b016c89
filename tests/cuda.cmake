# The emulated GPU: the kernels of kernels/cuda compiled for the host, one fiber per thread. Needs no CUDA.
find_package(Boost 1.74 REQUIRED COMPONENTS context)

set_source_files_properties(${PROJECT_SOURCE_DIR}/kernels/cuda/kernels.cu PROPERTIES
  LANGUAGE CXX COMPILE_OPTIONS "-xc++")
add_library(gradwarden_emulator STATIC
  emulator/block.cc emulator/fiber.cc emulator/launcher.cc emulator/memory_map.cc
  ${PROJECT_SOURCE_DIR}/kernels/cuda/kernels.cu)
target_compile_definitions(gradwarden_emulator PUBLIC GRADWARDEN_EMULATOR="tests/emulator/device_emulator.h")
# The kernels' unroll pragmas are nvcc's.
target_compile_options(gradwarden_emulator PUBLIC -Wno-unknown-pragmas)
target_link_libraries(gradwarden_emulator PUBLIC gradwarden_kernels_cuda_plan Boost::context PRIVATE gradwarden_flags)

gradwarden_test(emulator_test
  SOURCES emulator/apply_test.cc emulator/broken_kernels_test.cc emulator/decide_test.cc emulator/digest_test.cc
          emulator/large_tensor_test.cc emulator/statistics_test.cc emulator/step_device.cc property/kernel_reference.cc
  LIBS gradwarden_emulator gradwarden_kernels_cpu hwy::hwy Threads::Threads
  LABELS emulator)

# The emulated CUDA runtime and NCCL, against the real headers. As objects, not an archive: nothing refers to the nccl*
# symbols, since the client looks for them in the running process, and so a linker would leave them out.
if(GRADWARDEN_CUDA)
  find_package(CUDAToolkit QUIET)
endif()
find_path(GRADWARDEN_NCCL_INCLUDE_DIR nccl.h HINTS "${PROJECT_SOURCE_DIR}/build/tools/nccl/include"
  DOC "NCCL's headers (deploy/fetch_nccl.sh build/tools/nccl fetches them)")
if(CUDAToolkit_FOUND AND GRADWARDEN_NCCL_INCLUDE_DIR)
  set(GRADWARDEN_EMULATED_RUNTIME ON)
else()
  set(GRADWARDEN_EMULATED_RUNTIME OFF)
endif()
add_feature_info("emulated CUDA runtime" GRADWARDEN_EMULATED_RUNTIME
  "tests of the GPU path's host code; needs nvcc's headers and nccl.h (deploy/fetch_nccl.sh build/tools/nccl)")

if(GRADWARDEN_EMULATED_RUNTIME)
  add_library(gradwarden_emulated_runtime OBJECT
    emulator/runtime/capture.cc emulator/runtime/control.cc emulator/runtime/device_calls.cc
    emulator/runtime/graph.cc emulator/runtime/graph_calls.cc emulator/runtime/group.cc
    emulator/runtime/kernel_registry.cc emulator/runtime/machine.cc emulator/runtime/memory_calls.cc
    emulator/runtime/move_data.cc emulator/runtime/nccl_calls.cc emulator/runtime/stream.cc
    emulator/runtime/stream_calls.cc emulator/runtime/world.cc)
  # The C symbols are to be seen by dlsym(RTLD_DEFAULT, ...).
  set_target_properties(gradwarden_emulated_runtime PROPERTIES CXX_VISIBILITY_PRESET default)
  target_link_options(gradwarden_emulated_runtime INTERFACE -rdynamic)
  target_include_directories(gradwarden_emulated_runtime SYSTEM PUBLIC
    ${CUDAToolkit_INCLUDE_DIRS} ${GRADWARDEN_NCCL_INCLUDE_DIR})
  target_link_libraries(gradwarden_emulated_runtime PUBLIC gradwarden_emulator Threads::Threads
    PRIVATE gradwarden_flags)
endif()

# gradwarden_emulated_test(NAME SOURCES ... LIBS ... [LABELS ...]): a test whose CUDA and NCCL are the emulated ones. The
# runtime is linked by the executable itself; libraries must not bring the real one.
function(gradwarden_emulated_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS;LABELS" ${ARGN})
  gradwarden_test(${name} SOURCES ${ARG_SOURCES} LIBS gradwarden_emulated_runtime ${ARG_LIBS} LABELS ${ARG_LABELS})
endfunction()

if(GRADWARDEN_EMULATED_RUNTIME)
  # Without kernels there are no fibers, so ThreadSanitizer can watch.
  gradwarden_emulated_test(emulated_runtime_test
    SOURCES emulator/runtime/graph_test.cc emulator/runtime/memory_test.cc
            emulator/runtime/nccl_failure_test.cc emulator/runtime/nccl_test.cc
            emulator/runtime/stream_test.cc
    LABELS runtime)
  gradwarden_emulated_test(emulated_kernel_test
    SOURCES emulator/runtime/kernel_launch_test.cc
    LABELS emulator)
endif()

# What nvcc makes of the kernels: registers, spills, stack, width of loads.
add_test(NAME kernel_resources
  COMMAND ${PROJECT_SOURCE_DIR}/tests/emulator/resource_report.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(kernel_resources PROPERTIES LABELS cuda TIMEOUT 300 SKIP_RETURN_CODE 77)
if(GRADWARDEN_CUDA)
  set_tests_properties(kernel_resources PROPERTIES ENVIRONMENT "GRADWARDEN_NVCC=${CMAKE_CUDA_COMPILER}")
else()
  set_tests_properties(kernel_resources PROPERTIES ENVIRONMENT "GRADWARDEN_NVCC=")
endif()
