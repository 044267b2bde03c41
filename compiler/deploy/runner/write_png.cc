#include "write_png.h"

#include <cstdio>

#include "failure.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include "third_party/stb_image_write/stb_image_write.h"
#pragma GCC diagnostic pop

namespace vitq {

void write_png(const std::string& path, const Image& image) {
  std::string content;
  const auto take = [](void* to, void* data, int size) {
    static_cast<std::string*>(to)->append(static_cast<const char*>(data), static_cast<size_t>(size));
  };
  const int row = image.width * image.channels;
  const int done = stbi_write_png_to_func(take, &content, image.width, image.height, image.channels,
                                          image.pixels.data(), row);
  std::FILE* file = done ? std::fopen(path.c_str(), "wb") : nullptr;
  const bool is_written = file && std::fwrite(content.data(), 1, content.size(), file) == content.size();
  const bool is_closed = file && std::fclose(file) == 0;
  if (!is_written || !is_closed) throw Failure(path + " could not be written", kLost);
}

}  // namespace vitq
