// What a device says of itself.
#ifndef VITQ_DESCRIPTION_H_
#define VITQ_DESCRIPTION_H_

#include <cstdint>
#include <string>

namespace vitq {

// One JSON object: name, architecture, features, processor, cores, emulated.
std::string describe_device(const std::string& name);

// The most memory that this process ever had (getrusage would count what started it, too).
int64_t peak_bytes();

}  // namespace vitq

#endif  // VITQ_DESCRIPTION_H_
