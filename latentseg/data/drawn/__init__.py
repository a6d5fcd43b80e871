"""Masks that are drawn from annotations: COCO, LabelMe, Label Studio."""
