// Streams that really run asynchronously: a thread each, started with the first task.
//
// Safe from any thread. A Stream is shared by its handle and by whoever waits for it; tasks hold no
// stream, so that none is destroyed on its own thread.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_STREAM_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_STREAM_H_

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace gradwarden::emulator {

struct Capture;

// `dead`: the device has failed or the machine is being reset, so that nothing but what others wait
// for is still to be done.
using Task = std::function<void(bool dead)>;

// A task that runs `work` unless the device is dead.
Task live_task(std::function<void()> work);

// Something that happens once, on a stream.
class Occurrence {
 public:
  void complete();
  bool done() const;
  void wait() const;
  // When it completed, in milliseconds of a steady clock.
  double time() const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool done_ = false;
  double time_ = 0;
};

class Stream {
 public:
  Stream(int device, unsigned flags, int priority, bool is_legacy);
  ~Stream();  // finishes what is queued
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void push(Task task);
  bool idle() const;
  void wait() const;  // for what was pushed before
  void close();       // the thread ends when all is done
  bool ended() const;

  const int device;
  const unsigned flags;
  const int priority;
  const bool is_legacy;
  std::shared_ptr<Capture> capture;  // guarded by the lock of capture.cc

 private:
  void work();

  const std::uint64_t seed_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::uint64_t pushed_ = 0;
  std::uint64_t finished_ = 0;
  bool closed_ = false;
  bool ended_ = false;
  std::thread thread_;
};

// Whether this thread is in a host function of a stream, from which CUDA may not be called.
bool& in_host_function();

// A number of this stream's own sequence; for tasks.
std::uint64_t random_number();

// Runs a kernel on the emulated GPU of the stream whose task calls it.
void run_kernel(int device, const std::string& name, unsigned grid, unsigned block,
                const std::function<void()>& kernel);

// ---- the process's streams --------------------------------------------------------------------

cudaStream_t add_stream(std::shared_ptr<Stream> stream);
// For the null handle the legacy stream of `device`. Null if unknown.
std::shared_ptr<Stream> find_stream(cudaStream_t handle, int device);
bool remove_stream(cudaStream_t handle);
// All that still run on a device, removed ones too.
std::vector<std::shared_ptr<Stream>> streams_of(int device);
void remove_all_streams();

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_STREAM_H_
