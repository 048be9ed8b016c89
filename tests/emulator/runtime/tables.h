// The handles of the process that several files of calls share.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_TABLES_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_TABLES_H_

#include <cuda_runtime_api.h>

#include "tests/emulator/runtime/capture.h"
#include "tests/emulator/runtime/handles.h"

namespace gradwarden::emulator {

Handles<Event, cudaEvent_t>& events();
Handles<Graph, cudaGraph_t>& graphs();
Handles<GraphExec, cudaGraphExec_t>& graph_execs();

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_TABLES_H_
