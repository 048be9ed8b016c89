# Tests that print the figures which the documentation quotes: agreement with torch, decisions that differ between ranks.

# Against torch, through the shared library's C API. Skipped where build/tools/torch is missing (deploy/fetch_torch.sh
# makes it); a sanitized library does not go with an interpreter that is not.
if(NOT GRADWARDEN_SANITIZE)
  add_library(gradwarden_torch_agreement SHARED property/torch_agreement_capi.cc)
  target_link_libraries(gradwarden_torch_agreement PRIVATE gradwarden gradwarden_flags)
  foreach(test IN ITEMS
      norms:NormsCoefficientsAndClippedGradientsAreThoseOfClipGradNorm values:ClampedGradientsHaveTheBitsOfClipGradValue)
    string(REPLACE ":" ";" test ${test})
    list(POP_FRONT test what)
    add_test(NAME TorchAgreement.${test}
      COMMAND ${PROJECT_SOURCE_DIR}/tests/property/torch_agreement.py ${what} $<TARGET_FILE:gradwarden_torch_agreement>)
    set_tests_properties(TorchAgreement.${test} PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 LABELS property)
  endforeach()
endif()

gradwarden_test(guard_decisions_test SOURCES property/guard_decisions_test.cc
  LIBS gradwarden_client_guard gradwarden_client_collective LABELS property)
