# The fuzz targets. With GRADWARDEN_FUZZ (clang; preset "fuzz") each is a fuzzer, fuzz_NAME; in every other build it runs
# over its kept corpus and over small changes of it, as a test.
# Under GCC's sanitizers there are none: the fuzzers have clang's, and begin with the corpus.
option(GRADWARDEN_FUZZ "Build the fuzz targets with libFuzzer (needs clang)" OFF)
if(GRADWARDEN_SANITIZE AND NOT GRADWARDEN_FUZZ)
  return()
endif()

function(gradwarden_fuzz_target name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(fuzz_${name} fuzz/${name}_fuzz.cc ${ARG_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_LIBS} gradwarden_flags)
  if(GRADWARDEN_FUZZ)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzz_targets fuzz_${name})
  else()
    target_sources(fuzz_${name} PRIVATE fuzz/replay_main.cc)
  endif()
endfunction()

add_custom_target(fuzz_targets)
gradwarden_fuzz_target(configuration
  SOURCES ${PROJECT_SOURCE_DIR}/daemon/app/config.cc ${PROJECT_SOURCE_DIR}/daemon/app/listen.cc
  LIBS gradwarden_daemon_security gradwarden_daemon_detect gradwarden_proto yaml-cpp)
gradwarden_fuzz_target(http LIBS gradwarden_daemon_page gradwarden_daemon_security spdlog::spdlog)
gradwarden_fuzz_target(log LIBS gradwarden_daemon_replay)
gradwarden_fuzz_target(report LIBS gradwarden_daemon_ingest)
gradwarden_fuzz_target(page LIBS gradwarden_daemon_page)
gradwarden_fuzz_target(stored LIBS gradwarden_daemon_ingest gradwarden_client_reporter gradwarden_client_guard
  gradwarden_client_collective)

if(NOT GRADWARDEN_FUZZ)
  set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus)
  add_test(NAME Fuzz.NoReportOfTheCorpusBreaksTheDaemon COMMAND fuzz_report ${corpus}/report 300)
  add_test(NAME Fuzz.NoConfigurationOfTheCorpusBreaksTheDaemon COMMAND fuzz_configuration ${corpus}/configuration 300)
  add_test(NAME Fuzz.NoLogOfTheCorpusBreaksItsReader COMMAND fuzz_log ${corpus}/log 300)
  add_test(NAME Fuzz.NoRequestOfTheCorpusBreaksTheHttpPort COMMAND fuzz_http ${corpus}/http 20)
  add_test(NAME Fuzz.NoRowsOfTheCorpusBreakThePage COMMAND fuzz_page ${corpus}/page 100)
  add_test(NAME Fuzz.NothingStoredInTheCorpusBreaksWhoReadsIt COMMAND fuzz_stored ${corpus}/stored 300)
endif()
