// NumPy's .npy format, versions 1 to 3, C order, as far as the runner needs it.
#ifndef VITQ_NPY_H_
#define VITQ_NPY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace vitq {

struct NpyArray {
  std::string descr;  // "|u1", "<i4"
  std::vector<int64_t> shape;
  std::string data;
};

// Throws Failure if `content` is no .npy whose data has exactly the size that its header says.
NpyArray parse_npy(const std::string& content, const std::string& path);

// Writes float32 in C order, under a temporary name first. Throws Failure.
void write_npy(const std::string& path, const std::vector<int64_t>& shape,
               const std::vector<float>& values);

}  // namespace vitq

#endif  // VITQ_NPY_H_
