#include "tests/emulator/step_device.h"

#include <gtest/gtest.h>

#include "kernels/cuda/kernels.h"
#include "tests/emulator/emulate.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::emulate;

PlanTables tables_of(std::span<const TestTensor> tensors, std::uint32_t group_count) {
  std::vector<TensorEntry> entries;
  for (std::uint32_t i = 0; i < tensors.size(); ++i) entries.push_back(entry_of(tensors[i], i));
  return build_plan(entries, group_count);
}

}  // namespace

TensorEntry entry_of(const TestTensor& tensor, std::uint32_t id) {
  TensorEntry entry;
  entry.data = tensor.buffer->data();
  entry.count = tensor.buffer->count();
  entry.id = id + 1000;
  entry.offset = 10 * id;
  entry.group = tensor.group;
  entry.weight = tensor.weight;
  entry.dtype = tensor.buffer->format().dtype;
  return entry;
}

StepDevice::StepDevice(emulator::Launcher& launcher, std::span<const TestTensor> tensors,
                       std::uint32_t group_count)
    : launcher_(launcher),
      tables_(tables_of(tensors, group_count)),
      plan_(plan_over(tables_, tables_.tensors.data(), tables_.chunks.data(),
                      tables_.group_tensors.data(), tables_.group_first.data())),
      chunks_(plan_.chunk_count),
      tensors_(plan_.tensor_count),
      summary_(summary_bytes(group_count) / 8),
      groups_(group_count),
      factors_(group_count) {
  for (const TensorEntry& t : tables_.tensors) {
    if (t.count != 0) launcher_.register_buffer(t.data, t.count * dtype_bytes(t.dtype));
  }
}

StepDevice::~StepDevice() {
  for (const TensorEntry& t : tables_.tensors) launcher_.unregister_buffer(t.data);
}

void StepDevice::run_statistics() {
  emulate(find_statistics_kernel(norm_type_of(p)), grid, kBlockThreads, launcher_, plan_.tensors,
          plan_.chunks, plan_.chunk_count, p, chunks_.data());
}

void StepDevice::run_fold(TensorKind kind) {
  FoldArguments a;
  a.plan = plan_;
  a.chunks = chunks_.data();
  a.tensors = tensors_.data();
  a.summary = reinterpret_cast<RankHeader*>(summary_.data());
  if (kind == TensorKind::kShards) a.groups = groups_of(a.summary);
  if (loss_scale != nullptr) {
    memory_->loss_scale = *loss_scale;
    a.loss_scale.at = &memory_->loss_scale;
  }
  a.counters = &memory_->counters;
  a.blocks_done = &memory_->blocks_done;
  a.kind = kind;
  a.p = p;
  emulate(find_fold_kernel(), grid, kBlockThreads, launcher_, a);
}

void StepDevice::run_decide(const void* gathered, std::uint32_t world_size) {
  DecideArguments a;
  a.gathered = gathered;
  a.world_size = world_size;
  a.group_count = plan_.group_count;
  a.p = p;
  a.policy = &memory_->policy;
  if (!group_policies.empty()) a.group_policies = group_policies.data();
  a.state = &memory_->state;
  a.counters = &memory_->counters;
  a.own = reinterpret_cast<RankHeader*>(summary_.data());
  a.groups = groups_.data();
  a.factors = factors_.data();
  a.result = &memory_->result;
  a.shadow = shadow;
  emulate(find_decide_kernel(), 1, kBlockThreads, launcher_, a);
}

void StepDevice::run_apply() {
  emulate(find_apply_kernel(), grid, kBlockThreads, launcher_, plan_.tensors, plan_.chunks,
          plan_.chunk_count, factors_.data(), false, &memory_->result);
}

void expect_clean(emulator::Launcher& launcher) {
  for (const emulator::Violation& v : launcher.take_violations()) {
    ADD_FAILURE() << emulator::name_of(v.finding) << ": " << v.what;
  }
}

}  // namespace gradwarden::kernels::cuda
