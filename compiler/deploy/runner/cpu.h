// Whether this processor has what the model was compiled for.
#ifndef VITQ_CPU_H_
#define VITQ_CPU_H_

#include <set>
#include <string>
#include <vector>

namespace vitq {

// Of this program, as `uname -m` says.
extern const char* const kArchitecture;

// Features of this processor, named as in /proc/cpuinfo; the architecture is one of them.
std::set<std::string> processor_features();

// How many processors this process may use.
int processor_count();

// Throws Failure (kWrongDevice) for another architecture or a missing feature.
void check_processor(const std::string& architecture, const std::vector<std::string>& needs,
                     const std::string& target);

}  // namespace vitq

#endif  // VITQ_CPU_H_
