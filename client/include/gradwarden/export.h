// Marks what the shared library exports; everything else in it is hidden.
#ifndef GRADWARDEN_EXPORT_H_
#define GRADWARDEN_EXPORT_H_

#define GRADWARDEN_API __attribute__((visibility("default")))

#endif  // GRADWARDEN_EXPORT_H_
