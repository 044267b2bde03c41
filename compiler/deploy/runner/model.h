// A loaded model. Each flavour of the bundle has its own implementation of `load_model`.
#ifndef VITQ_MODEL_H_
#define VITQ_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "manifest.h"

namespace vitq {

class Model {
 public:
  virtual ~Model() = default;
  // One batch: (B, C, H, W) pixels in, (B, integers of all results) out. Throws Failure.
  virtual void infer(const uint8_t* pixels, int32_t* codes) = 0;
  // What the plan reserves for an inference beside the weights; 0 where there is no plan.
  virtual int64_t planned_bytes() const { return 0; }
};

// The flavour that this runner was built for, and the files it loads.
extern const char* const kFlavour;
std::vector<std::string> model_files();

// Loads checked files. Throws Failure.
std::unique_ptr<Model> load_model(const Manifest& manifest, int threads);

}  // namespace vitq

#endif  // VITQ_MODEL_H_
