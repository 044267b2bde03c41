// Answers: the best classes of pictures, as text or JSON.
#ifndef VITQ_INFER_H_
#define VITQ_INFER_H_

#include <string>
#include <vector>

#include "manifest.h"
#include "model.h"

namespace vitq {

struct InferOptions {
  std::vector<std::string> sources;  // files, or folders of pictures (with class folders or not)
  std::string labels;                // file of names; the bundle's own if empty
  int top = 5;
  bool json = false, raw = false;  // raw: all integers
  std::string features;            // .npy to write the results to as real numbers, no answers then
  std::string result;              // which one; all if empty, each into a file of its own
};

// Prints an answer for each picture, in the order of the sources, or writes the results of all to
// files; full batches where there are as many pictures. Throws Failure.
void infer(Model& model, const Manifest& manifest, const InferOptions& options);

// Any number of pictures, the last batch padded with its own last picture.
std::vector<int32_t> run_all(Model& model, const Manifest& manifest,
                             const std::vector<uint8_t>& pixels);

}  // namespace vitq

#endif  // VITQ_INFER_H_
