#include "dense.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

#include "failure.h"
#include "infer.h"
#include "pictures.h"
#include "write_png.h"

namespace vitq {
namespace {

using Color = std::array<int, 3>;
constexpr double kMostOverlap = 0.5;  // of two boxes of a class, intersection by union

// Far apart for neighbouring numbers: hues that turn by the golden ratio.
Color color_of(int32_t index) {
  const double hue = 6 * std::fmod(0.618033988749895 * index, 1.0);
  Color color;
  for (int c = 0; c < 3; ++c) {
    const double at = std::fmod(hue + 2.0 * c, 6.0);
    const double level = std::min(std::max(std::min(at, 4 - at), 0.0), 1.0);
    color[static_cast<size_t>(c)] = static_cast<int>(std::lround(255 * level));
  }
  return color;
}

// The picture as the model saw it, as RGB.
Image seen(const Manifest& manifest, const std::vector<uint8_t>& pixels) {
  const int width = static_cast<int>(manifest.width), height = static_cast<int>(manifest.height);
  const size_t plane = static_cast<size_t>(width) * static_cast<size_t>(height);
  const bool turned = manifest.preprocessing.fitting.color == VITQ_BGR;
  Image image = blank(width, height, 3);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      const size_t from = manifest.channels < 3 ? 0 : (turned ? 2 - c : c);
      image.pixels[3 * i + c] = pixels[from * plane + i];
    }
  }
  return image;
}

// The integers of one picture, and what the model saw.
struct Seen {
  std::vector<int32_t> codes;
  Image image;
};

Seen look(Model& model, const Manifest& manifest, const DenseOptions& options) {
  const std::vector<uint8_t> pixels = read_pictures(options.source, manifest);
  if (pixels.size() != static_cast<size_t>(manifest.picture_bytes())) {
    throw Failure(options.source + " holds several pictures: give one");
  }
  return {run_all(model, manifest, pixels), seen(manifest, pixels)};
}

[[noreturn]] void refuse(const Manifest& manifest, const std::string& what) {
  throw Failure("the model returns no " + what + ": it returns " + manifest.result_names() +
                "; vitq-run infer --features FILE.npy writes them");
}

const Result* result_of(const Manifest& manifest, size_t rank) {
  for (const Result& result : manifest.results) {
    if (result.shape.size() == rank) return &result;
  }
  return nullptr;
}

// Classes (H, W) of a map of classes or of scores.
std::vector<int32_t> classes_of(const Result& result, const int32_t* codes) {
  if (result.shape.size() == 2) return {codes, codes + result.count};
  const size_t size = static_cast<size_t>(result.shape[1] * result.shape[2]);
  std::vector<int32_t> best(size, 0);
  for (int32_t c = 1; c < result.shape[0]; ++c) {
    for (size_t i = 0; i < size; ++i) {
      const size_t so_far = static_cast<size_t>(best[i]) * size + i;
      if (codes[static_cast<size_t>(c) * size + i] > codes[so_far]) best[i] = c;
    }
  }
  return best;
}

// Calls `draw` with each pixel of the picture and the place of the map's element over it.
template <typename Draw>
void over(Image& image, int64_t height, int64_t width, Draw draw) {
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      draw(image.at(x, y), static_cast<size_t>(y * height / image.height * width +
                                               x * width / image.width));
    }
  }
}

void finish(const DenseOptions& options, const Image& image) {
  if (!options.overlay.empty()) write_png(options.overlay, image);
}

struct Box {
  int32_t label;
  double probability, left, top, right, bottom;  // from 0 to 1
};

double overlap(const Box& a, const Box& b) {
  const double width = std::min(a.right, b.right) - std::max(a.left, b.left);
  const double height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  if (width <= 0 || height <= 0) return 0;
  const double both = width * height;
  const double areas = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top);
  return both / (areas - both);
}

Box box_of(const Result& scores, const int32_t* said, const Result& boxes, const int32_t* place) {
  const int64_t count = scores.shape[1];
  const int32_t best = static_cast<int32_t>(std::max_element(said, said + count - 1) - said);
  double sum = 0;
  for (int64_t c = 0; c < count; ++c) sum += std::exp(scores.real(said[c]) - scores.real(said[best]));
  const double x = boxes.real(place[0]), y = boxes.real(place[1]);
  const double w = boxes.real(place[2]) / 2, h = boxes.real(place[3]) / 2;
  const auto inside = [](double at) { return std::min(std::max(at, 0.0), 1.0); };
  return {best, 1 / sum, inside(x - w), inside(y - h), inside(x + w), inside(y + h)};
}

std::vector<Box> boxes_of(const Result& scores, const Result& boxes, const int32_t* row,
                          double least) {
  std::vector<Box> all, kept;
  for (int64_t q = 0; q < boxes.shape[0]; ++q) {
    const Box box = box_of(scores, row + scores.first + q * scores.shape[1], boxes,
                           row + boxes.first + q * 4);
    if (box.probability >= least) all.push_back(box);
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Box& a, const Box& b) { return a.probability > b.probability; });
  for (const Box& box : all) {
    const bool is_double = std::any_of(kept.begin(), kept.end(), [&](const Box& other) {
      return other.label == box.label && overlap(box, other) > kMostOverlap;
    });
    if (!is_double) kept.push_back(box);
  }
  return kept;
}

void frame(Image& image, const Box& box) {
  const auto pixel = [](double at, int size) {
    return std::min(static_cast<int>(std::lround(at * size)), size - 1);
  };
  const int left = pixel(box.left, image.width), right = pixel(box.right, image.width);
  const int top = pixel(box.top, image.height), bottom = pixel(box.bottom, image.height);
  const Color color = color_of(box.label + 1);
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) {
      if (x != left && x != right && y != top && y != bottom) continue;
      for (size_t c = 0; c < 3; ++c) image.at(x, y)[c] = static_cast<uint8_t>(color[c]);
    }
  }
}

}  // namespace

void segment(Model& model, const Manifest& manifest, const DenseOptions& options) {
  const Result* result = result_of(manifest, 3);
  if (result && result->shape[0] == 1) result = nullptr;
  for (const Result& each : manifest.results) {
    if (each.shape.size() == 2 && each.scale == 1 && each.zero_point == 0) result = &each;
  }
  if (!result) refuse(manifest, "map of classes");
  Seen found = look(model, manifest, options);
  const int32_t* codes = &found.codes[static_cast<size_t>(result->first)];
  const std::vector<int32_t> classes = classes_of(*result, codes);
  std::map<int32_t, size_t> counts;
  for (const int32_t label : classes) ++counts[label];
  const char* separator = options.json ? "{\"classes\": {" : "";
  for (const auto& [label, count] : counts) {
    std::printf(options.json ? "%s\"%d\": %zu" : "%sclass %d: %zu pixels\n", separator, label, count);
    separator = options.json ? ", " : "";
  }
  if (options.json) std::printf("}}\n");
  const size_t rank = result->shape.size();
  over(found.image, result->shape[rank - 2], result->shape[rank - 1], [&](uint8_t* pixel, size_t i) {
    if (classes[i] == 0) return;  // the background stays as it is
    const Color color = color_of(classes[i]);
    for (size_t c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>((pixel[c] + 2 * color[c]) / 3);
  });
  finish(options, found.image);
}

void depth(Model& model, const Manifest& manifest, const DenseOptions& options) {
  const Result* result = result_of(manifest, 2);
  if (!result) result = result_of(manifest, 3);
  const size_t rank = result ? result->shape.size() : 0;
  if (!result || (rank == 3 && result->shape[0] != 1)) refuse(manifest, "map of one value a pixel");
  Seen found = look(model, manifest, options);
  const int32_t* codes = &found.codes[static_cast<size_t>(result->first)];
  const auto [low, high] = std::minmax_element(codes, codes + result->count);
  std::printf(options.json ? "{\"least\": %.9g, \"most\": %.9g}\n" : "depth: %.6g to %.6g\n",
              result->real(*low), result->real(*high));
  const int64_t reach = std::max<int64_t>(int64_t{*high} - *low, 1);
  over(found.image, result->shape[rank - 2], result->shape[rank - 1], [&](uint8_t* pixel, size_t i) {
    const auto level = static_cast<uint8_t>(255 * (int64_t{codes[i]} - *low) / reach);
    std::fill_n(pixel, 3, level);
  });
  finish(options, found.image);
}

void detect(Model& model, const Manifest& manifest, const DenseOptions& options) {
  const Result *scores = nullptr, *boxes = nullptr;
  for (const Result& result : manifest.results) {
    if (result.shape.size() != 2) continue;
    if (result.shape[1] == 4 && result.name.find("boxes") != std::string::npos) boxes = &result;
    else if (result.shape[1] > 1) scores = &result;
  }
  if (!boxes || !scores || boxes->shape[0] != scores->shape[0]) {
    refuse(manifest, "boxes (Q, 4) beside scores (Q, classes + 1)");
  }
  Seen found = look(model, manifest, options);
  const std::vector<Box> kept = boxes_of(*scores, *boxes, found.codes.data(), options.score);
  const char* format = options.json ? "%s\n {\"class\": %d, \"probability\": %.6f, \"box\": [%.2f, "
                                      "%.2f, %.2f, %.2f]}"
                                    : "%sclass %d  %.3f  box %.1f %.1f %.1f %.1f\n";
  const char* separator = options.json ? "{\"boxes\": [" : "";
  if (options.json && kept.empty()) std::printf("{\"boxes\": [");
  for (const Box& box : kept) {
    const double w = found.image.width, h = found.image.height;
    std::printf(format, separator, box.label, box.probability, w * box.left, h * box.top,
                w * box.right, h * box.bottom);
    separator = options.json ? "," : "";
    frame(found.image, box);
  }
  if (options.json) std::printf("]}\n");
  finish(options, found.image);
}

}  // namespace vitq
