// Stream capture: the rules of what may join, and the graph that comes of it.
//
// One lock for all captures of the process; every way to enqueue work goes through submit().
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_CAPTURE_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_CAPTURE_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tests/emulator/runtime/stream.h"

namespace gradwarden::emulator {

// Work for a stream. `bind` is called on the host's thread each time the work is enqueued, at once
// or at the launch of a graph; it counts, and gives what the stream runs.
struct Work {
  std::function<Task()> bind;
  bool is_collective = false;
};

struct Node {
  Work work;
  std::set<std::size_t> after;
};

struct Graph {
  std::vector<Node> nodes;  // each after those it depends on
};

struct GraphExec {
  std::shared_ptr<const Graph> graph;
  std::mutex mutex;
  std::shared_ptr<Occurrence> last_launch;  // one at a time
};

struct Capture {
  std::uint64_t id = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  const Stream* origin = nullptr;
  std::thread::id owner;
  bool invalid = false;
  bool over = false;
  Graph graph;
  std::map<Stream*, std::set<std::size_t>> ends;  // of each stream that has joined
};

struct Event {
  int device = 0;
  unsigned flags = 0;
  // Of the last record, by capture.cc's lock: on a stream, or in a capture.
  std::shared_ptr<Occurrence> last;
  std::weak_ptr<Capture> capture;
  bool captured = false;
  std::set<std::size_t> ends;
};

// Enqueues, or adds to the capture that the stream is in.
cudaError_t submit(Stream& stream, Work work);
cudaError_t record_event(Event& event, Stream& stream);
cudaError_t wait_event(Stream& stream, Event& event);
// Null if it was never recorded on a stream.
std::shared_ptr<Occurrence> last_record(const Event& event);

// For calls that are refused while a capture goes on; a refusal makes the capture invalid.
cudaError_t refuse_unsafe();
cudaError_t refuse_capturing(Stream& stream);
cudaError_t refuse_captured(Event& event);
cudaError_t refuse_capturing_device(int device);

cudaError_t begin_capture(Stream& stream, cudaStreamCaptureMode mode);
cudaError_t end_capture(Stream& stream, std::shared_ptr<Graph>& graph);
cudaError_t capture_status(Stream& stream, cudaStreamCaptureStatus* status, unsigned long long* id);
void forget_captures();

cudaError_t launch_graph(GraphExec& exec, Stream& stream);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_CAPTURE_H_
