"""Models in the forms of other libraries: `mage.interop.timm_models`, `mage.interop.scikit_learn`."""
