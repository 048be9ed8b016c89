// Objects behind opaque handles that are never given out twice, so that use after destruction is
// seen. Safe from any thread; an object lives on while somebody still holds it.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_HANDLES_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_HANDLES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace gradwarden::emulator {

template <typename T, typename Handle>
class Handles {
 public:
  Handle add(std::shared_ptr<T> object) {
    const std::lock_guard lock(mutex_);
    next_ += 16;
    objects_[next_] = std::move(object);
    return reinterpret_cast<Handle>(next_);
  }
  // Null if unknown.
  std::shared_ptr<T> find(Handle handle) const {
    const std::lock_guard lock(mutex_);
    const auto it = objects_.find(reinterpret_cast<std::uintptr_t>(handle));
    return it == objects_.end() ? nullptr : it->second;
  }
  std::shared_ptr<T> take(Handle handle) {
    const std::lock_guard lock(mutex_);
    const auto it = objects_.find(reinterpret_cast<std::uintptr_t>(handle));
    if (it == objects_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(it->second);
    objects_.erase(it);
    return object;
  }
  std::vector<std::shared_ptr<T>> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<T>> out;
    for (const auto& [handle, object] : objects_) out.push_back(object);
    return out;
  }
  void clear() {
    std::map<std::uintptr_t, std::shared_ptr<T>> gone;  // destroyed outside the lock
    const std::lock_guard lock(mutex_);
    gone.swap(objects_);
  }

 private:
  mutable std::mutex mutex_;
  std::uintptr_t next_ = 0x10000;  // above cudaStreamLegacy and its like
  std::map<std::uintptr_t, std::shared_ptr<T>> objects_;
};

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_HANDLES_H_
