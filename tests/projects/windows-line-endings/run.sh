#!/bin/bash
echo trained
