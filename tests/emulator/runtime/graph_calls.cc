// Capture and graphs.
#include <cuda_runtime_api.h>

#include "tests/emulator/runtime/calls.h"
#include "tests/emulator/runtime/capture.h"
#include "tests/emulator/runtime/tables.h"

namespace gradwarden::emulator {

Handles<Graph, cudaGraph_t>& graphs() {
  static auto& only = *new Handles<Graph, cudaGraph_t>;
  return only;
}

Handles<GraphExec, cudaGraphExec_t>& graph_execs() {
  static auto& only = *new Handles<GraphExec, cudaGraphExec_t>;
  return only;
}

}  // namespace gradwarden::emulator

using namespace gradwarden::emulator;  // NOLINT: the C symbols below are global

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return stream_call("cudaStreamBeginCapture", handle,
                     [&](Stream& stream) { return begin_capture(stream, mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  return stream_call("cudaStreamEndCapture", handle, [&](Stream& stream) {
    if (out == nullptr) return cudaErrorInvalidValue;
    *out = nullptr;
    std::shared_ptr<Graph> graph;
    const cudaError_t error = end_capture(stream, graph);
    if (error == cudaSuccess) *out = graphs().add(std::move(graph));
    return error;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return stream_call("cudaStreamIsCapturing", handle, [&](Stream& stream) {
    if (status == nullptr) return cudaErrorInvalidValue;
    return capture_status(stream, status, nullptr);
  });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* dependency_count) {
  return stream_call("cudaStreamGetCaptureInfo", handle, [&](Stream& stream) {
    if (status == nullptr) return cudaErrorInvalidValue;
    if (graph != nullptr || dependencies != nullptr || edges != nullptr ||
        dependency_count != nullptr)
      return cudaErrorNotSupported;
    return capture_status(stream, status, id);
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t handle, unsigned long long) {
  return call("cudaGraphInstantiate", [&] {
    const std::shared_ptr<Graph> graph = graphs().find(handle);
    if (out == nullptr || graph == nullptr) return cudaErrorInvalidValue;
    auto exec = std::make_shared<GraphExec>();
    exec->graph = graph;
    *out = graph_execs().add(std::move(exec));
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  return stream_call("cudaGraphLaunch", stream_handle, [&](Stream& stream) {
    const std::shared_ptr<GraphExec> exec = graph_execs().find(handle);
    if (exec == nullptr) return cudaErrorInvalidValue;
    return launch_graph(*exec, stream);
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return call("cudaGraphExecDestroy", [&] {
    return graph_execs().take(handle) != nullptr ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return call("cudaGraphDestroy", [&] {
    return graphs().take(handle) != nullptr ? cudaSuccess : cudaErrorInvalidValue;
  });
}

}  // extern "C"
