#include "decode.h"

#include "failure.h"

#if __has_include(<stb_image.h>)

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS (1 << 14)
#include <stb_image.h>

#include <memory>

namespace vitq {

Image decode_picture(const std::string& content, const std::string& path) {
  int width = 0, height = 0, channels = 0;
  const auto* data = reinterpret_cast<const stbi_uc*>(content.data());
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(data, static_cast<int>(content.size()), &width, &height, &channels, 3),
      stbi_image_free);
  if (!pixels) throw Failure(path + " cannot be read as a picture: " + stbi_failure_reason());
  return {width, height, {pixels.get(), pixels.get() + size_t{3} * width * height}};
}

}  // namespace vitq

#else

namespace vitq {

Image decode_picture(const std::string&, const std::string& path) {
  throw Failure(path + ": this runner was built without stb_image.h, which reads JPEG and PNG: "
                "convert the picture to .ppm");
}

}  // namespace vitq

#endif
