"""Models that others made: load any of the usual forms, find out what the network expects, and name what is wrong.

`loading.load` turns a MODEL string into a module; one file here is one form. `probe.examine` tries what such networks
expect (size, range, normalisation, layout, output, class order) against labelled images and confirms it.
"""
