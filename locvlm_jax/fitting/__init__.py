"""From a folder of somebody's boxes to a trained and evaluated model."""
