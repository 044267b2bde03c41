// Answers that are pictures: classes of pixels, depth, boxes; drawn over what the model saw.
#ifndef VITQ_DENSE_H_
#define VITQ_DENSE_H_

#include <string>
#include <vector>

#include "manifest.h"
#include "model.h"

namespace vitq {

struct DenseOptions {
  std::string source;   // one picture
  std::string overlay;  // PNG to write; none if empty
  double score = 0.5;   // of boxes: the least probability
  bool json = false;
};

// A map (H, W) of classes (quantize --output argmax), or of scores (classes, H, W), whose largest is taken, the lowest of
// equal ones. Prints how many pixels each class has. Throws Failure.
void segment(Model& model, const Manifest& manifest, const DenseOptions& options);

// A map (H, W) or (1, H, W): prints its range; drawn in grey from the smallest to the largest.
void depth(Model& model, const Manifest& manifest, const DenseOptions& options);

// Two results, "boxes" (Q, 4) as centre x, centre y, width and height from 0 to 1, and "scores" or
// "logits" (Q, classes + 1), the last of which is none: of each query the best class whose softmax
// is `score` at least, without those that overlap a better one of its class by more than half.
void detect(Model& model, const Manifest& manifest, const DenseOptions& options);

}  // namespace vitq

#endif  // VITQ_DENSE_H_
