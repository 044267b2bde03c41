// JPEG and PNG through stb_image (public domain or MIT), where it was there when this was built.
#ifndef VITQ_DECODE_H_
#define VITQ_DECODE_H_

#include <string>

#include "resize.h"

namespace vitq {

// Throws Failure if `content` is no JPEG or PNG, or if the runner was built without stb_image.
Image decode_picture(const std::string& content, const std::string& path);

}  // namespace vitq

#endif  // VITQ_DECODE_H_
