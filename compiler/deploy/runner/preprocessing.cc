#include "preprocessing.h"

#include "failure.h"
#include "vitq_pixels.c"

namespace vitq {
namespace {

using Words = std::vector<std::pair<const char*, int>>;

const Words kColors{{"RGB", VITQ_RGB}, {"BGR", VITQ_BGR}, {"L", VITQ_L}, {"RGBA", VITQ_RGBA}};
const Words kResizes{{"shortest", VITQ_SHORTEST},
                     {"squash", VITQ_SQUASH},
                     {"longest", VITQ_LONGEST},
                     {"none", VITQ_NONE}};
const Words kRoundings{{"floor", VITQ_ROUND_FLOOR}, {"nearest", VITQ_ROUND_NEAREST}};
const Words kFilters{{"nearest", VITQ_NEAREST}, {"box", VITQ_BOX},         {"bilinear", VITQ_BILINEAR},
                     {"hamming", VITQ_HAMMING}, {"bicubic", VITQ_BICUBIC}, {"lanczos", VITQ_LANCZOS}};
const Words kOffsets{{"half_even", VITQ_CROP_HALF_EVEN}, {"floor", VITQ_CROP_FLOOR}};
const Words kOrientations{{"keep", 0}, {"apply", 1}};

constexpr int64_t kLargestSide = 1 << 16;

int word_of(const Json& object, const char* key, const Words& words) {
  const std::string text = object.at(key).text();
  for (const auto& word : words) {
    if (text == word.first) return word.second;
  }
  throw Failure("manifest.json: preprocessing's " + std::string(key) + " is " + text +
                ": this runner does not know it, deploy again");
}

std::vector<int64_t> numbers_of(const Json& list, size_t count, int64_t least, int64_t most) {
  std::vector<int64_t> numbers;
  for (const Json& item : list.items()) {
    numbers.push_back(item.integer());
    if (numbers.back() < least || numbers.back() > most) numbers.clear();
  }
  if (numbers.size() != count) throw Failure("manifest.json: preprocessing is damaged");
  return numbers;
}

std::string size_text(int64_t width, int64_t height) {
  return std::to_string(width) + " x " + std::to_string(height);
}

}  // namespace

Preprocessing read_preprocessing(const Json& manifest, int64_t channels, int64_t height,
                                 int64_t width) {
  Preprocessing result;
  if (!manifest.has("preprocessing")) return result;
  const Json object = manifest.at("preprocessing");
  vitq_preprocessing& fitting = result.fitting;
  result.takes_pictures = true;
  result.applies_orientation = word_of(object, "orientation", kOrientations) == 1;
  fitting.height = static_cast<int32_t>(height);
  fitting.width = static_cast<int32_t>(width);
  fitting.color = word_of(object, "color", kColors);
  fitting.resize = word_of(object, "resize", kResizes);
  fitting.rounding = word_of(object, "rounding", kRoundings);
  fitting.filter = word_of(object, "interpolation", kFilters);
  fitting.crop_offset = word_of(object, "crop_offset", kOffsets);
  const auto size = numbers_of(object.at("resize_size"), 2, 1, kLargestSide);
  fitting.resize_height = static_cast<int32_t>(size[0]);
  fitting.resize_width = static_cast<int32_t>(size[1]);
  const auto fill = numbers_of(object.at("fill"), static_cast<size_t>(channels), 0, 255);
  if (vitq_channels(fitting.color) != channels) {
    throw Failure("manifest.json: preprocessing's color is not that of " +
                  std::to_string(channels) + " channels");
  }
  for (size_t c = 0; c < fill.size(); ++c) fitting.fill[c] = static_cast<uint8_t>(fill[c]);
  return result;
}

std::vector<uint8_t> prepare(const Preprocessing& how, const Image& image,
                             const std::string& path) {
  if (!how.takes_pictures) {
    throw Failure(path + " is a picture: how the model takes pictures is unknown, give raw pixels");
  }
  if (how.fitting.color == VITQ_RGBA && image.has_vague_alpha) {
    throw Failure(path + " has a transparent colour, not of 8 bits: save it with an alpha channel");
  }
  const Image turned = how.applies_orientation ? upright(image) : image;
  const vitq_preprocessing& fitting = how.fitting;
  std::vector<uint8_t> planes(static_cast<size_t>(vitq_channels(fitting.color)) *
                              static_cast<size_t>(fitting.height) *
                              static_cast<size_t>(fitting.width));
  const int code = vitq_fit(&fitting, turned.pixels.data(), turned.width, turned.height,
                            turned.channels, planes.data());
  if (code == VITQ_NO_MEMORY) throw Failure("not enough memory for " + path);
  if (code != VITQ_OK) {
    int64_t width = 0, height = 0;
    vitq_resized(&fitting, turned.width, turned.height, &width, &height);
    throw Failure(path + " (" + size_text(turned.width, turned.height) + ") would be resized to " +
                  size_text(width, height) + ": more than " + std::to_string(VITQ_MOST_PIXELS) +
                  " pixels, cut it first");
  }
  return planes;
}

}  // namespace vitq
