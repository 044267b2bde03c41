#include "timing.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "failure.h"

namespace vitq {
namespace {

constexpr size_t kAlignment = 256;

using Memory = std::unique_ptr<void, decltype(&std::free)>;

size_t bytes_of(const DLTensor& tensor) {
  size_t bytes = (tensor.dtype.bits * tensor.dtype.lanes + 7) / 8;
  for (int i = 0; i < tensor.ndim; ++i) bytes *= static_cast<size_t>(tensor.shape[i]);
  return bytes;
}

// All calls' arguments; the copies of the constants belong to it.
class Sets {
 public:
  Sets(const TimingPlan& plan, const std::vector<DLTensor*>& arguments) {
    const auto copies = static_cast<size_t>(plan.copies);
    tensors_.reserve(copies * arguments.size());  // pointers into it stay valid
    for (size_t copy = 0; copy < copies; ++copy) {
      std::vector<TVMFFIAny> call;
      for (size_t i = 0; i < arguments.size(); ++i) {
        tensors_.push_back(*arguments[i]);
        if (copy > 0 && (plan.constants >> i & 1)) duplicate(&tensors_.back());
        TVMFFIAny value = none();
        value.type_index = kTVMFFIDLTensorPtr;
        value.v_ptr = &tensors_.back();
        call.push_back(value);
      }
      calls_.push_back(std::move(call));
    }
  }

  // Mean seconds of a call over all sets.
  double round(const Runtime& runtime, TVMFFIObjectHandle kernel) const {
    const auto start = std::chrono::steady_clock::now();
    for (const std::vector<TVMFFIAny>& call : calls_) runtime.call(kernel, call);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    return time.count() / static_cast<double>(calls_.size());
  }

  double size() const { return static_cast<double>(calls_.size()); }

 private:
  void duplicate(DLTensor* tensor) {
    const size_t bytes = bytes_of(*tensor);
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    memory_.emplace_back(std::aligned_alloc(kAlignment, rounded), std::free);
    if (!memory_.back()) throw Failure("not enough memory");
    std::memcpy(memory_.back().get(), static_cast<char*>(tensor->data) + tensor->byte_offset, bytes);
    tensor->data = memory_.back().get();
    tensor->byte_offset = 0;
  }

  std::vector<DLTensor> tensors_;
  std::vector<Memory> memory_;
  std::vector<std::vector<TVMFFIAny>> calls_;
};

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const size_t middle = times.size() / 2;
  return times.size() % 2 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
}

}  // namespace

double time_kernel(const Runtime& runtime, const std::string& library, const std::string& kernel,
                   const TimingPlan& plan, const std::vector<DLTensor*>& arguments) {
  if (plan.blocks < 1 || plan.min_rounds < 1 || plan.copies < 1) throw Failure("nothing to time");
  TVMFFIObjectHandle function = runtime.method(runtime.load_module(library), kernel.c_str());
  const Sets sets(plan, arguments);
  sets.round(runtime, function);
  const double once = std::max(sets.round(runtime, function) * sets.size(), 1e-9);
  const auto fitting = static_cast<int64_t>(plan.budget_s / static_cast<double>(plan.blocks) / once);
  const int64_t rounds = std::max(plan.min_rounds, fitting);
  double best = 0;
  for (int64_t block = 0; block < plan.blocks; ++block) {
    std::vector<double> times;
    for (int64_t i = 0; i < rounds; ++i) times.push_back(sets.round(runtime, function));
    const double found = median(std::move(times));
    if (block == 0 || found < best) best = found;
  }
  return best;
}

}  // namespace vitq
