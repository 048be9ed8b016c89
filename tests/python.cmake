# The Python package, imported from the build tree, with ranks as processes on loopback.
set(environment PYTHONPATH=${GRADWARDEN_PYTHON_PATH})
if(GRADWARDEN_DAEMON)
  list(APPEND environment GRADWARDEN_COMMAND=$<TARGET_FILE:gradwarden_command> GRADWARDEND=$<TARGET_FILE:gradwardend>)
endif()
foreach(case clip daemon ddp_hook guard inputs mirror monitoring training)
  add_test(NAME Python.${case} COMMAND ${Python_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/python/test_${case}.py -v)
  set_tests_properties(Python.${case} PROPERTIES ENVIRONMENT "${environment}" LABELS "python;no-tsan" TIMEOUT 300
    PROCESSORS 2)
endforeach()
