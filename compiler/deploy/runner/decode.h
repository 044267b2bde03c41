// Decoding JPEG, PNG and PPM, told by their first bytes: the pixels that Pillow gives.
#ifndef VITQ_DECODE_H_
#define VITQ_DECODE_H_

#include <string>

#include "image.h"

namespace vitq {

enum class Format { kUnknown, kJpeg, kPng, kPpm };

Format format_of(const std::string& content);

// Throws Failure if `content` is none of them, damaged, too large, or of a kind that is refused.
Image decode_picture(const std::string& content, const std::string& path);

// Each for one format.
Image decode_jpeg(const std::string& content, const std::string& path);
Image decode_png(const std::string& content, const std::string& path);
Image decode_ppm(const std::string& content, const std::string& path);

// Throws Failure for a picture that is larger than the runner takes.
void check_size(int64_t width, int64_t height, const std::string& path);

}  // namespace vitq

#endif  // VITQ_DECODE_H_
