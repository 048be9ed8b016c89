#include "tests/emulator/runtime/capture.h"

#include <algorithm>
#include <utility>

namespace gradwarden::emulator {
namespace {

std::mutex& mutex() {
  static std::mutex& only = *new std::mutex;
  return only;
}

// Those that go on, guarded by the lock, as is every Stream's `capture`.
std::vector<std::shared_ptr<Capture>>& captures() {
  static auto& only = *new std::vector<std::shared_ptr<Capture>>;
  return only;
}

bool orders_with_legacy(const Stream& stream) {
  return (stream.flags & cudaStreamNonBlocking) == 0;
}

// A capture that the legacy stream of this device would have to wait for.
Capture* in_the_way_of_legacy(const Stream& stream) {
  if (!stream.is_legacy) return nullptr;
  for (const auto& capture : captures()) {
    for (const auto& [member, ends] : capture->ends) {
      if (member->device == stream.device && orders_with_legacy(*member)) return capture.get();
    }
  }
  return nullptr;
}

void add_node(Capture& capture, Stream& stream, Work work) {
  std::set<std::size_t>& ends = capture.ends[&stream];
  capture.graph.nodes.push_back({std::move(work), ends});
  ends = {capture.graph.nodes.size() - 1};
}

// What the origin's end does not wait for would run on after the graph.
bool joined(const Capture& capture) {
  std::vector<bool> reached(capture.graph.nodes.size());
  for (const auto& [stream, ends] : capture.ends) {
    if (stream != capture.origin) continue;
    for (const std::size_t end : ends) reached[end] = true;
  }
  for (std::size_t i = reached.size(); i-- > 0;) {
    if (!reached[i]) continue;
    for (const std::size_t before : capture.graph.nodes[i].after) reached[before] = true;
  }
  return std::all_of(capture.ends.begin(), capture.ends.end(), [&](const auto& member) {
    return std::all_of(member.second.begin(), member.second.end(),
                       [&](std::size_t end) { return reached[end]; });
  });
}

cudaError_t invalidate(Capture& capture, cudaError_t error) {
  capture.invalid = true;
  return error;
}

}  // namespace

cudaError_t submit(Stream& stream, Work work) {
  {
    const std::lock_guard lock(mutex());
    if (stream.capture != nullptr) {
      if (stream.capture->invalid) return cudaErrorStreamCaptureInvalidated;
      add_node(*stream.capture, stream, std::move(work));
      return cudaSuccess;
    }
    if (Capture* capture = in_the_way_of_legacy(stream))
      return invalidate(*capture, cudaErrorStreamCaptureImplicit);
  }
  stream.push(work.bind());
  return cudaSuccess;
}

cudaError_t record_event(Event& event, Stream& stream) {
  const std::lock_guard lock(mutex());
  if (stream.capture != nullptr) {
    if (stream.capture->invalid) return cudaErrorStreamCaptureInvalidated;
    event.captured = true;
    event.capture = stream.capture;
    event.ends = stream.capture->ends[&stream];
    return cudaSuccess;
  }
  if (Capture* capture = in_the_way_of_legacy(stream))
    return invalidate(*capture, cudaErrorStreamCaptureImplicit);
  event.captured = false;
  event.last = std::make_shared<Occurrence>();
  stream.push([occurrence = event.last](bool) { occurrence->complete(); });
  return cudaSuccess;
}

cudaError_t wait_event(Stream& stream, Event& event) {
  const std::lock_guard lock(mutex());
  if (stream.capture != nullptr && stream.capture->invalid)
    return cudaErrorStreamCaptureInvalidated;
  if (event.captured) {
    const std::shared_ptr<Capture> capture = event.capture.lock();
    if (capture == nullptr || capture->over) return cudaErrorCapturedEvent;
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (stream.is_legacy) return invalidate(*capture, cudaErrorStreamCaptureImplicit);
    if (stream.capture != nullptr && stream.capture != capture) {
      stream.capture->invalid = true;
      return invalidate(*capture, cudaErrorStreamCaptureMerge);
    }
    stream.capture = capture;
    capture->ends[&stream].insert(event.ends.begin(), event.ends.end());
    return cudaSuccess;
  }
  if (event.last == nullptr) return cudaSuccess;  // never recorded
  if (stream.capture != nullptr)
    return invalidate(*stream.capture, cudaErrorStreamCaptureIsolation);
  if (Capture* capture = in_the_way_of_legacy(stream))
    return invalidate(*capture, cudaErrorStreamCaptureImplicit);
  stream.push([occurrence = event.last](bool) { occurrence->wait(); });
  return cudaSuccess;
}

std::shared_ptr<Occurrence> last_record(const Event& event) {
  const std::lock_guard lock(mutex());
  return event.last;
}

cudaError_t refuse_unsafe() {
  const std::lock_guard lock(mutex());
  cudaError_t result = cudaSuccess;
  for (const auto& capture : captures()) {
    const bool own = capture->owner == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeGlobal ||
        (capture->mode == cudaStreamCaptureModeThreadLocal && own)) {
      result = invalidate(*capture, cudaErrorStreamCaptureUnsupported);
    }
  }
  return result;
}

cudaError_t refuse_capturing(Stream& stream) {
  const std::lock_guard lock(mutex());
  if (stream.capture != nullptr)
    return invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported);
  if (Capture* capture = in_the_way_of_legacy(stream))
    return invalidate(*capture, cudaErrorStreamCaptureImplicit);
  return cudaSuccess;
}

cudaError_t refuse_captured(Event& event) {
  const std::lock_guard lock(mutex());
  if (!event.captured) return cudaSuccess;
  if (const auto capture = event.capture.lock()) capture->invalid = true;
  return cudaErrorCapturedEvent;
}

cudaError_t refuse_capturing_device(int device) {
  const std::lock_guard lock(mutex());
  cudaError_t result = cudaSuccess;
  for (const auto& capture : captures()) {
    for (const auto& [member, ends] : capture->ends) {
      if (member->device == device)
        result = invalidate(*capture, cudaErrorStreamCaptureUnsupported);
    }
  }
  return result;
}

cudaError_t begin_capture(Stream& stream, cudaStreamCaptureMode mode) {
  static std::uint64_t last_id = 0;
  const std::lock_guard lock(mutex());
  if (stream.is_legacy) return cudaErrorStreamCaptureUnsupported;
  if (stream.capture != nullptr) return cudaErrorIllegalState;
  auto capture = std::make_shared<Capture>();
  capture->id = ++last_id;
  capture->mode = mode;
  capture->origin = &stream;
  capture->owner = std::this_thread::get_id();
  capture->ends[&stream];
  stream.capture = capture;
  captures().push_back(std::move(capture));
  return cudaSuccess;
}

cudaError_t end_capture(Stream& stream, std::shared_ptr<Graph>& graph) {
  const std::lock_guard lock(mutex());
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != &stream) return invalidate(*capture, cudaErrorStreamCaptureUnmatched);
  const bool own = capture->owner == std::this_thread::get_id();
  if (capture->mode != cudaStreamCaptureModeRelaxed && !own)
    return invalidate(*capture, cudaErrorStreamCaptureWrongThread);
  for (const auto& [member, ends] : capture->ends) member->capture = nullptr;
  capture->over = true;
  std::erase(captures(), capture);
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (!joined(*capture)) return cudaErrorStreamCaptureUnjoined;
  graph = std::make_shared<Graph>(std::move(capture->graph));
  return cudaSuccess;
}

cudaError_t capture_status(Stream& stream, cudaStreamCaptureStatus* status,
                           unsigned long long* id) {
  const std::lock_guard lock(mutex());
  if (in_the_way_of_legacy(stream) != nullptr) return cudaErrorStreamCaptureImplicit;
  const Capture* capture = stream.capture.get();
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  if (id != nullptr && capture != nullptr) *id = capture->id;
  return cudaSuccess;
}

void forget_captures() {
  const std::lock_guard lock(mutex());
  for (const auto& capture : captures()) {
    for (const auto& [member, ends] : capture->ends) member->capture = nullptr;
    capture->over = true;
  }
  captures().clear();
}

}  // namespace gradwarden::emulator
