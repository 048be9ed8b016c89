// How the ranks of a run exchange their summaries: one small all-gather per step.
//
// The guard folds the gathered summaries in rank order, so that every rank computes the same bits
// whatever the transport promises about reductions. Other transports plug in by deriving from
// Collective or through CallbackCollective.
#ifndef GRADWARDEN_COLLECTIVE_H_
#define GRADWARDEN_COLLECTIVE_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "gradwarden/export.h"

namespace gradwarden {

// Used by one thread at a time. All ranks make the same calls in the same order with the same
// sizes.
class GRADWARDEN_API Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  // Gathers `bytes` bytes from every rank into `receive` (size() * bytes), in rank order. Returns
  // false if the exchange failed or timed out; later calls may then fail too. `send` and `receive`
  // do not overlap.
  virtual bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept = 0;
  // What went wrong in the last failed call, for people. Empty if nothing did.
  virtual std::string last_error() const { return {}; }
};

// A run of one rank.
class GRADWARDEN_API SingleRank final : public Collective {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override;
};

// Ranks that are threads of this process.
//
//   ThreadRanks ranks(4);
//   // in thread i:  Collective& mine = ranks.rank(i);
class GRADWARDEN_API ThreadRanks {
 public:
  // A rank that waits longer than `timeout` for the others fails, and with it every later call of
  // all ranks.
  explicit ThreadRanks(int size, std::chrono::milliseconds timeout = std::chrono::minutes(1));
  ~ThreadRanks();
  ThreadRanks(const ThreadRanks&) = delete;
  ThreadRanks& operator=(const ThreadRanks&) = delete;
  Collective& rank(int rank);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A caller-supplied exchange with the contract of Collective::all_gather. A function that throws
// counts as failed.
class GRADWARDEN_API CallbackCollective final : public Collective {
 public:
  using AllGather = std::function<bool(const void* send, void* receive, std::size_t bytes)>;
  CallbackCollective(int rank, int size, AllGather all_gather);
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override;
  std::string last_error() const override { return last_error_; }

 private:
  int rank_;
  int size_;
  AllGather all_gather_;
  std::string last_error_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_COLLECTIVE_H_
