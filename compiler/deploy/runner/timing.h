// Times a kernel on this device, as `vitq tune` does on its own machine.
#ifndef VITQ_TIMING_H_
#define VITQ_TIMING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime.h"

namespace vitq {

struct TimingPlan {
  double budget_s;     // how long to measure
  int64_t blocks;      // the result is the lowest of the blocks' medians
  int64_t min_rounds;  // in each block
  int64_t copies;      // sets of constants that are used in turn
  int64_t constants;   // bit i: argument i is one
};

// Seconds of one call. Activations stay in the cache, constants come from further away, as inside
// a model. Throws Failure.
double time_kernel(const Runtime& runtime, const std::string& library, const std::string& kernel,
                   const TimingPlan& plan, const std::vector<DLTensor*>& arguments);

}  // namespace vitq

#endif  // VITQ_TIMING_H_
