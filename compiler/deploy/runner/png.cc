// PNG: stb_image's decoder. What it does not look at is looked at here: every chunk's checksum, the
// end of the file, the picture's size before memory is taken, and places behind a short palette.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "decode.h"
#include "exif.h"
#include "failure.h"

namespace {

// A small file may hold gigabytes of zeros: no more is unpacked than the picture needs.
thread_local size_t allowance = 0;

void* bounded_realloc(void* memory, size_t size) {
  return size > allowance ? nullptr : std::realloc(memory, size);
}

}  // namespace

#define STBI_MALLOC(size) std::malloc(size)
#define STBI_REALLOC(memory, size) bounded_realloc(memory, size)
#define STBI_FREE(memory) std::free(memory)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_SIMD
#define STBI_MAX_DIMENSIONS (1 << 24)
#include "third_party/stb_image/stb_image.h"
#pragma GCC diagnostic pop

namespace vitq {
namespace {

constexpr size_t kSignature = 8, kFrame = 12, kHeader = 13;  // a chunk's length, name and checksum
constexpr size_t kPalette = 256 * 3;
constexpr size_t kMostBytes = 8;   // of a pixel: four channels of 16 bits
constexpr size_t kSlack = 1 << 16;
constexpr uint8_t kIndexed = 3;

[[noreturn]] void fail(const std::string& path, const std::string& reason) {
  throw Failure(path + " cannot be read as a picture: " + reason);
}

uint32_t number_at(const std::string& content, size_t at) {
  uint32_t result = 0;
  for (size_t i = 0; i < 4; ++i) result = result << 8 | static_cast<uint8_t>(content[at + i]);
  return result;
}

std::string text_of(uint32_t number) {
  std::string result;
  for (int shift = 24; shift >= 0; shift -= 8) result += static_cast<char>(number >> shift & 255);
  return result;
}

// PNG's CRC-32, of ISO 3309.
uint32_t checksum(const char* data, size_t size) {
  static const auto table = [] {
    std::vector<uint32_t> entries(256);
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320U : 0);
      entries[i] = value;
    }
    return entries;
  }();
  uint32_t value = ~0U;
  for (size_t i = 0; i < size; ++i) {
    value = table[(value ^ static_cast<uint8_t>(data[i])) & 255] ^ value >> 8;
  }
  return ~value;
}

std::string chunk(const std::string& name, const std::string& body) {
  const std::string named = name + body;
  return text_of(static_cast<uint32_t>(body.size())) + named +
         text_of(checksum(named.data(), named.size()));
}

// What a pass over the chunks finds; `content` is what stb_image reads.
struct Chunks {
  std::string content, exif, xmp;
  uint8_t depth = 0, color = 0;
  bool has_transparent_color = false;
  size_t unpacked = 0;  // at most so many bytes
};

// A palette of all 256 entries: those that the file lacks are black, as in Pillow.
std::string full_palette(std::string palette) {
  palette.resize(std::max(palette.size(), kPalette), '\0');
  return palette;
}

void take(const std::string& name, const std::string& body, const std::string& path,
          Chunks* chunks) {
  if (name == "IHDR") {
    if (body.size() != kHeader) fail(path, "a wrong PNG header");
    const size_t width = number_at(body, 0), height = number_at(body, 4);
    check_size(static_cast<int64_t>(width), static_cast<int64_t>(height), path);
    chunks->unpacked = (width * kMostBytes + 2) * height;  // with a filter's byte for each row
    chunks->depth = static_cast<uint8_t>(body[8]);
    chunks->color = static_cast<uint8_t>(body[9]);
  } else if (name == "tRNS") {
    chunks->has_transparent_color = chunks->color != kIndexed;
  } else if (name == "eXIf") {
    chunks->exif = body;
  } else if (name == "iTXt" && body.compare(0, 18, std::string("XML:com.adobe.xmp\0", 18)) == 0) {
    chunks->xmp = body;
  } else if (name == "CgBI") {
    fail(path, "Apple's variant of PNG");
  }
}

Chunks read_chunks(const std::string& content, const std::string& path) {
  Chunks chunks;
  chunks.content = content.substr(0, kSignature);
  for (size_t at = kSignature; at + kFrame <= content.size();) {
    const size_t size = number_at(content, at);
    if (size > content.size() - at - kFrame) break;
    const std::string name = content.substr(at + 4, 4);
    if (at == kSignature && name != "IHDR") fail(path, "a PNG without a header");
    const bool is_critical = (name[0] & 32) == 0;
    if (is_critical &&
        checksum(&content[at + 4], size + 4) != number_at(content, at + size + kFrame - 4)) {
      fail(path, "it is damaged (a wrong checksum)");
    }
    if (name == "IDAT" && size > 0) {
      chunks.content.append(content, at, size + kFrame);
    } else if (name != "IDAT") {
      const std::string body = content.substr(at + 8, size);
      take(name, body, path, &chunks);
      const bool is_short = name == "PLTE" && chunks.color == kIndexed && size % 3 == 0;
      if (is_critical || name == "tRNS") {
        chunks.content += chunk(name, is_short ? full_palette(body) : body);
      }
    }
    at += size + kFrame;
    if (name == "IEND") return chunks;
    if (at == content.size()) {  // Pillow needs no end
      chunks.content += chunk("IEND", "");
      return chunks;
    }
  }
  fail(path, "it is cut off");
}

}  // namespace

Image decode_png(const std::string& content, const std::string& path) {
  const Chunks chunks = read_chunks(content, path);
  Image image;
  // stb_image doubles what it reads into and what it unpacks into, until all fits.
  allowance = 2 * std::max(chunks.content.size(), chunks.unpacked) + kSlack;
  const auto* data = reinterpret_cast<const stbi_uc*>(chunks.content.data());
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(data, static_cast<int>(chunks.content.size()), &image.width,
                            &image.height, &image.channels, 0),
      stbi_image_free);
  if (!pixels) {
    const char* given = stbi_failure_reason();
    const std::string reason = given ? given : "it is damaged";
    fail(path, reason == "outofmem" ? "it holds more than its picture, or memory is short" : reason);
  }
  image.pixels.assign(pixels.get(), pixels.get() + image.count() * image.channels);
  image.has_vague_alpha = chunks.has_transparent_color && chunks.depth != 1 && chunks.depth != 8;
  const int found = tiff_orientation(chunks.exif);
  const int other = found > 0 ? found : xmp_orientation(chunks.xmp);
  image.orientation = other > 0 ? other : 1;
  return image;
}

}  // namespace vitq
