# The Python package, imported from the build tree, with ranks as processes on loopback.
set(environment PYTHONPATH=${GRADWARDEN_PYTHON_PATH})
if(GRADWARDEN_DAEMON)
  list(APPEND environment GRADWARDEN_COMMAND=$<TARGET_FILE:gradwarden_command> GRADWARDEND=$<TARGET_FILE:gradwardend>)
endif()
foreach(case clip daemon ddp_hook examples guard inputs layouts mirror monitoring placements sharding torch_path training)
  add_test(NAME Python.${case} COMMAND ${Python_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/python/test_${case}.py -v)
  set_tests_properties(Python.${case} PROPERTIES ENVIRONMENT "${environment}" LABELS "python;no-tsan" TIMEOUT 900
    PROCESSORS 2)
endforeach()

# The callbacks of trainers: beside torch they need what deploy/fetch_trainers.sh build/tools/trainers build/tools/torch
# fetches, and are skipped where it is missing.
file(GLOB trainers ${PROJECT_SOURCE_DIR}/build/tools/trainers/lib/python*/site-packages)
foreach(case lightning transformers)
  add_test(NAME Python.${case} COMMAND ${Python_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/python/test_${case}.py -v)
  set_tests_properties(Python.${case} PROPERTIES ENVIRONMENT "PYTHONPATH=${GRADWARDEN_PYTHON_PATH}:${trainers}"
    LABELS "python;no-tsan" TIMEOUT 900 PROCESSORS 2 SKIP_RETURN_CODE 77)
endforeach()

# The same module with its kernels, CUDA runtime and all emulated, for the package's way with gradients in GPU memory.
if(GRADWARDEN_EMULATED_RUNTIME)
  set(emulated ${CMAKE_CURRENT_BINARY_DIR}/emulated_python)
  nanobind_add_module(gradwarden_python_emulated NB_STATIC ${GRADWARDEN_PYTHON_SOURCES} ${PROJECT_SOURCE_DIR}/client/version.cc)
  target_include_directories(gradwarden_python_emulated PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(gradwarden_python_emulated PRIVATE
    GRADWARDEN_PYTHON_CUDA GRADWARDEN_VERSION="${PROJECT_VERSION}")
  # Not the shared library: that one brings the real CUDA runtime.
  target_link_libraries(gradwarden_python_emulated PRIVATE gradwarden_emulated_runtime
    gradwarden_client_guard_cuda gradwarden_client_nccl gradwarden_client_reporter gradwarden_client_guard
    gradwarden_client_collective gradwarden_kernels_cpu gradwarden_flags)
  set_target_properties(gradwarden_python_emulated PROPERTIES
    OUTPUT_NAME _core LIBRARY_OUTPUT_DIRECTORY ${emulated}/gradwarden)
  get_target_property(nanobind_includes nanobind-static INTERFACE_INCLUDE_DIRECTORIES)
  if(nanobind_includes)
    target_include_directories(gradwarden_python_emulated SYSTEM PRIVATE ${nanobind_includes})
  endif()
  file(MAKE_DIRECTORY ${emulated}/gradwarden)
  file(GLOB modules CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/client/python/gradwarden
    ${PROJECT_SOURCE_DIR}/client/python/gradwarden/*.py)
  foreach(module IN LISTS modules)
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/client/python/gradwarden/${module} ${emulated}/gradwarden/${module} SYMBOLIC)
  endforeach()
  add_test(NAME Python.device_path
    COMMAND ${Python_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/python/test_device_path.py -v)
  set_tests_properties(Python.device_path PROPERTIES ENVIRONMENT PYTHONPATH=${emulated}
    LABELS "python;no-tsan;emulator" TIMEOUT 900 PROCESSORS 2)
endif()
