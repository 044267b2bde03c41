// Whether this processor has what the model was compiled for.
#ifndef VITQ_CPU_H_
#define VITQ_CPU_H_

#include <string>
#include <vector>

namespace vitq {

// Throws Failure (kWrongDevice) for another architecture or a missing feature. Features are
// named as in /proc/cpuinfo.
void check_processor(const std::string& architecture, const std::vector<std::string>& needs,
                     const std::string& target);

}  // namespace vitq

#endif  // VITQ_CPU_H_
