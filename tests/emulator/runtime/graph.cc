// The launch of a graph: its nodes one at a time, in an order that only the captured dependencies
// restrict, so that code which needs more than it asked for fails.
#include <utility>

#include "tests/emulator/runtime/capture.h"
#include "tests/emulator/runtime/machine.h"

namespace gradwarden::emulator {
namespace {

class Replay {
 public:
  Replay(std::shared_ptr<const Graph> graph, std::vector<Task> tasks)
      : graph_(std::move(graph)), tasks_(std::move(tasks)) {}

  void run(int device) {
    std::vector<bool> done(tasks_.size());
    for (std::size_t left = tasks_.size(); left > 0; --left) {
      const std::vector<std::size_t> ready = ready_nodes(done);
      const std::size_t next = ready[random_number() % ready.size()];
      const Machine& machine = Machine::get();
      tasks_[next](machine.closing() || machine.sticky(device) != cudaSuccess);
      done[next] = true;
    }
  }

 private:
  // Collectives stay in the order of their capture, or ranks would wait for each other's. So the
  // first node that is left is always ready.
  std::vector<std::size_t> ready_nodes(const std::vector<bool>& done) const {
    std::vector<std::size_t> out;
    bool collective_left = false;
    for (std::size_t i = 0; i < done.size(); ++i) {
      if (done[i]) continue;
      const Node& node = graph_->nodes[i];
      bool ready = !(node.work.is_collective && collective_left);
      for (const std::size_t before : node.after) ready = ready && done[before];
      if (ready) out.push_back(i);
      collective_left = collective_left || node.work.is_collective;
    }
    return out;
  }

  std::shared_ptr<const Graph> graph_;
  std::vector<Task> tasks_;
};

}  // namespace

cudaError_t launch_graph(GraphExec& exec, Stream& stream) {
  if (const cudaError_t error = refuse_capturing(stream)) return error;
  Machine::get().count([](RuntimeCounters& c) { ++c.graph_launches; });
  std::vector<Task> tasks;
  for (const Node& node : exec.graph->nodes) tasks.push_back(node.work.bind());
  auto replay = std::make_shared<Replay>(exec.graph, std::move(tasks));
  auto end = std::make_shared<Occurrence>();
  const std::lock_guard lock(exec.mutex);
  const auto before = std::exchange(exec.last_launch, end);
  stream.push([replay, before, end, device = stream.device](bool) {
    if (before != nullptr) before->wait();
    replay->run(device);
    end->complete();
  });
  return cudaSuccess;
}

}  // namespace gradwarden::emulator
