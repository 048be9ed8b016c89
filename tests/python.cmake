# The Python package, imported from the build tree, with ranks as processes on loopback.
set(environment PYTHONPATH=${GRADWARDEN_PYTHON_PATH})
if(GRADWARDEN_DAEMON)
  list(APPEND environment GRADWARDEN_COMMAND=$<TARGET_FILE:gradwarden_command> GRADWARDEND=$<TARGET_FILE:gradwardend>)
endif()
foreach(case clip daemon ddp_hook examples guard inputs layouts mirror monitoring placements sharding torch_path training)
  add_test(NAME Python.${case} COMMAND ${Python_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/python/test_${case}.py -v)
  set_tests_properties(Python.${case} PROPERTIES ENVIRONMENT "${environment}" LABELS "python;no-tsan" TIMEOUT 300
    PROCESSORS 2)
endforeach()

# The callbacks of trainers: beside torch they need what deploy/fetch_trainers.sh build/tools/trainers build/tools/torch
# fetches, and are skipped where it is missing.
file(GLOB trainers ${PROJECT_SOURCE_DIR}/build/tools/trainers/lib/python*/site-packages)
foreach(case lightning transformers)
  add_test(NAME Python.${case} COMMAND ${Python_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/python/test_${case}.py -v)
  set_tests_properties(Python.${case} PROPERTIES ENVIRONMENT "PYTHONPATH=${GRADWARDEN_PYTHON_PATH}:${trainers}"
    LABELS "python;no-tsan" TIMEOUT 300 PROCESSORS 2 SKIP_RETURN_CODE 77)
endforeach()
