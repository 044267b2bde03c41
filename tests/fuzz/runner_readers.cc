// The runner's readers on anything: `runner_readers KIND FILE...` reads each file and says its name
// before it begins, so that a crash or a hang names its input. Failures are fine, all else is not.
// With VITQ_LIBFUZZER it is a target for libFuzzer; the first byte chooses the kind.
#include <cstdio>
#include <cstdlib>

#include "decode.h"
#include "exif.h"
#include "failure.h"
#include "manifest.h"
#include "npy.h"
#include "preprocessing.h"

namespace {

constexpr size_t kMostPixels = 1 << 22;  // larger ones are decoded, but not resized six times

vitq::Preprocessing how(int filter, int resize, int color) {
  vitq::Preprocessing result;
  result.takes_pictures = result.applies_orientation = true;
  result.fitting = {9, 7, color, resize, 11, 13, filter % 2, filter, resize % 2, {1, 2, 3, 4}};
  return result;
}

void read_picture(const std::string& content) {
  const vitq::Image image = vitq::decode_picture(content, "input");
  if (image.pixels.size() != image.count() * static_cast<size_t>(image.channels)) std::abort();
  if (image.count() > kMostPixels) return;
  for (int i = VITQ_NEAREST; i <= VITQ_LANCZOS; ++i) {
    try {
      vitq::prepare(how(i, i % 4, i % 4), image, "input");
    } catch (const vitq::Failure&) {
    }
  }
}

void read_npy(const std::string& content) {
  const vitq::NpyArray array = vitq::parse_npy(content, "input");
  size_t size = array.descr == "|u1" ? 1 : 4;
  for (const int64_t dim : array.shape) size *= static_cast<size_t>(dim);
  if (size != array.data.size()) std::abort();
}

void read_manifest(const std::string& content) {
  const vitq::Manifest manifest = vitq::parse_manifest(content, "input");
  if (manifest.picture_bytes() < 1 || manifest.batch < 1 || manifest.integers < 1) std::abort();
  for (const vitq::Result& result : manifest.results) {
    if (result.first < 0 || result.count < 1) std::abort();
    if (result.first + result.count > manifest.integers) std::abort();
  }
}

void read(char kind, const std::string& content) {
  try {
    if (kind == 'p') read_picture(content);
    else if (kind == 'n') read_npy(content);
    else if (kind == 'm') read_manifest(content);
    else if (kind == 'e') vitq::tiff_orientation(content) + vitq::xmp_orientation(content);
    else std::abort();
  } catch (const vitq::Failure& failure) {
    if (std::string(failure.what()).find('\n') != std::string::npos) std::abort();
  }
}

}  // namespace

#ifdef VITQ_LIBFUZZER

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) read("pnme"[data[0] % 4], {data + 1, data + size});
  return 0;
}

#else

int main(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    std::printf("%s\n", argv[i]);
    std::fflush(stdout);
    read(argv[1][0], vitq::read_file(argv[i], 1 << 30));
  }
  std::puts("done");
  return 0;
}

#endif
