// What the runner's readers make of pictures: `pixels_probe MANIFEST.json OUT PICTURE...` writes the
// pixels of each picture, prepared as the manifest says, or decoded only where that is "-", and says
// one line for each: channels, height, width, or why it is refused.
#include <cstdio>

#include "decode.h"
#include "failure.h"
#include "manifest.h"
#include "preprocessing.h"

namespace {

vitq::Preprocessing read(const std::string& path) {
  if (path == "-") return {};
  const vitq::Json content = vitq::Json::parse(vitq::read_file(path, 1 << 20), path);
  const auto shape = content.at("preprocessing").at("input_shape").items();
  return vitq::read_preprocessing(content, shape[0].integer(), shape[1].integer(),
                                  shape[2].integer());
}

void write(const vitq::Preprocessing& how, const std::string& path, FILE* out) {
  const vitq::Image image = vitq::decode_picture(vitq::read_file(path, 1 << 30), path);
  int channels = image.channels, height = image.height, width = image.width;
  std::vector<uint8_t> pixels = image.pixels;
  if (how.takes_pictures) {
    pixels = vitq::prepare(how, image, path);
    height = how.fitting.height;
    width = how.fitting.width;
    channels = vitq_channels(how.fitting.color);
  }
  std::fwrite(pixels.data(), 1, pixels.size(), out);
  std::printf("%d %d %d\n", channels, height, width);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const vitq::Preprocessing how = read(argv[1]);
    FILE* out = std::fopen(argv[2], "wb");
    for (int i = 3; i < argc; ++i) {
      try {
        write(how, argv[i], out);
      } catch (const vitq::Failure& failure) {
        std::printf("%s\n", failure.what());
      }
    }
    std::fclose(out);
  } catch (const vitq::Failure& failure) {
    std::printf("%s\n", failure.what());
    return failure.code;
  }
  return 0;
}
