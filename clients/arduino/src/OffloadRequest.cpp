/* Where the bytes of code come from. */
#include "OffloadRequest.h"

#include <Arduino.h>
#include <string.h>

static bool readFlash(void *module, uint32_t offset, uint8_t *to, uint8_t count) {
  memcpy_P(to, static_cast<const uint8_t *>(module) + offset, count);
  return true;
}

static bool readRam(void *module, uint32_t offset, uint8_t *to, uint8_t count) {
  memcpy(to, static_cast<const uint8_t *>(module) + offset, count);
  return true;
}

OffloadCode OffloadCode::flash(const void *module, uint32_t size) {
  return from(readFlash, const_cast<void *>(module), size);
}

OffloadCode OffloadCode::ram(const void *module, uint32_t size) {
  return from(readRam, const_cast<void *>(module), size);
}

OffloadCode OffloadCode::from(Reader reader, void *context, uint32_t size) {
  OffloadCode code = {reader, context, size, nullptr};
  return code;
}

OffloadRequest OffloadRequest::program(const char *name) {
  OffloadRequest request = OffloadRequest();
  request.program_ = name;
  return request;
}

OffloadRequest OffloadRequest::module(const OffloadCode &code) {
  OffloadRequest request = OffloadRequest();
  request.code_ = code;
  return request;
}
