// Writing PNG: stb_image_write's encoder.
#ifndef VITQ_WRITE_PNG_H_
#define VITQ_WRITE_PNG_H_

#include <string>

#include "image.h"

namespace vitq {

// 8 bits a channel. Throws Failure (kLost) where the file cannot be written.
void write_png(const std::string& path, const Image& image);

}  // namespace vitq

#endif  // VITQ_WRITE_PNG_H_
