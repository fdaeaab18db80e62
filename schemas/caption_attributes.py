"""What a caption can say that a picture can be checked for. NULL where the caption does not say it."""

CAPTION_ATTRIBUTES = (
    "subject",
    "top",
    "top_color",
    "bottom",
    "bottom_color",
    "shoes_color",
    "hair_color",
    "scene",
    "background_color",
    "lighting",
    "camera",
    "realism",
    "demographic",
)
