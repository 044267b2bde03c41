// The orientation that a picture's metadata give: EXIF's, else XMP's, as Pillow looks for it.
#ifndef VITQ_EXIF_H_
#define VITQ_EXIF_H_

#include <string>

namespace vitq {

// 1 to 8; 1 where there is none, or none that can be read.
int jpeg_orientation(const std::string& content);

// Of EXIF's TIFF structure, 0 if it has none.
int tiff_orientation(const std::string& tiff);

// Of an XMP text, 0 if it has none.
int xmp_orientation(const std::string& xmp);

}  // namespace vitq

#endif  // VITQ_EXIF_H_
